//! The memory of the nodes' processes, as the kernel counts it.

use std::collections::BTreeMap;
use std::fs;

use crate::cli::exit::{Exit, Failure};
use crate::net::NodeStatus;
use crate::types::NodeId;

/// The most that was seen of each node.
#[derive(Debug)]
pub struct Memory {
    nodes: BTreeMap<NodeId, (u32, u64)>,
}

impl Memory {
    pub fn of(statuses: &[NodeStatus]) -> Memory {
        Memory { nodes: statuses.iter().map(|status| (status.id, (status.pid, 0))).collect() }
    }

    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Looks at all of them.
    pub fn look(&mut self) -> Result<(), Failure> {
        for (pid, most_bytes) in self.nodes.values_mut() {
            *most_bytes = resident_bytes(*pid)?.max(*most_bytes);
        }
        Ok(())
    }

    pub fn most(&self, node: NodeId) -> u64 {
        self.nodes.get(&node).map_or(0, |(_, most_bytes)| *most_bytes)
    }
}

/// Memory of its own: pages of files that are mapped are the kernel's.
fn resident_bytes(pid: u32) -> Result<u64, Failure> {
    let path = format!("/proc/{pid}/status");
    let failure = |error: &str| {
        let message = format!("the memory of process {pid} is not to be had: {path}: {error}");
        Failure::new(Exit::Other, message, "see that the node still runs, and its log")
    };
    let text = fs::read_to_string(&path).map_err(|error| failure(&error.to_string()))?;
    parse(&text).ok_or_else(|| failure("no line RssAnon"))
}

fn parse(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}

#[test]
fn this_process_has_memory_of_its_own() {
    let taken = vec![1u8; 8 << 20];
    let found = resident_bytes(std::process::id()).expect("it runs");
    assert!(found > taken.len() as u64, "{found}");
    assert_eq!(parse("Name:\tx\nRssAnon:\t      12 kB\n"), Some(12 << 10));
    assert_eq!(parse("Name:\tx\n"), None);
}
