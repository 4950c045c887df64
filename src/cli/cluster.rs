//! `trilith cluster`: what the nodes say of themselves, and orders to the cluster.

mod members;
mod moving;
pub mod snapshots;
mod transfer;

use std::net::SocketAddr;

use serde::Serialize;

use super::access::{self, ClientArguments};
use super::exit::{Exit, Failure};
use super::output::{self, Format};
use crate::client::Error;
use crate::net::{NodeRole, NodeStatus};
use crate::types::NodeId;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Say what each node does
    Status {
        /// How to print it
        #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
        output: Format,
        #[command(flatten)]
        client: ClientArguments,
    },
    /// Add a member, which votes as soon as it has caught up (needs an admin's certificate)
    Add(members::Add),
    /// Let learners vote as soon as they have caught up (needs an admin's certificate)
    Promote(members::Promote),
    /// Take members out of the cluster (needs an admin's certificate)
    Remove(members::Remove),
    /// Have every node make a snapshot now, and wait for the leader's (needs an admin's certificate)
    Snapshot(snapshots::Snapshot),
    /// Give the leadership to another voter (needs an admin's certificate)
    Transfer(transfer::Transfer),
}

/// The document of `-o json`.
#[derive(Serialize)]
struct Shown {
    nodes: Vec<ShownNode>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum ShownNode {
    Reached(Box<ShownStatus>),
    Unreached { id: u64, address: SocketAddr, error: String },
}

#[derive(Serialize)]
struct ShownStatus {
    id: u64,
    address: SocketAddr,
    pid: u32,
    incarnation: String,
    role: &'static str,
    term: u64,
    leader: Option<u64>,
    first: u64,
    last: u64,
    last_term: u64,
    durable: u64,
    commit: u64,
    applied: u64,
    members: Vec<ShownMember>,
    /// Who voted before the change that is under way; empty unless one is that changes voters.
    voters_outgoing: Vec<u64>,
    io: String,
    sync_mode: String,
    waiting: String,
    records: u64,
    record_bytes: u64,
    flushes: u64,
    sessions: u64,
    removals_failed: u64,
    unremoved_segments: u64,
    snapshots: snapshots::ShownSnapshots,
}

#[derive(Serialize)]
struct ShownMember {
    id: u64,
    address: SocketAddr,
    incarnation: String,
    voter: bool,
    /// A learner that votes as soon as it has caught up.
    promoting: bool,
}

type Answered = (NodeId, SocketAddr, Result<NodeStatus, Error>);

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Command::Status { output, client } => status(client, *output),
        Command::Add(add) => add.run(),
        Command::Promote(promote) => promote.run(),
        Command::Remove(remove) => remove.run(),
        Command::Snapshot(snapshot) => snapshot.run(),
        Command::Transfer(transfer) => transfer.run(),
    }
}

/// A node that does not answer is part of the answer; it is a failure only if none does.
fn status(client: &ClientArguments, format: Format) -> Result<(), Failure> {
    access::block_on(async {
        let nodes = client.start()?.statuses().await;
        output::print(&match format {
            Format::Table => table(&nodes),
            Format::Json => json(&nodes),
        })?;
        match nodes.iter().any(|(_, _, status)| status.is_ok()) {
            true => Ok(()),
            false => Err(nobody(nodes)),
        }
    })
}

fn nobody(nodes: Vec<Answered>) -> Failure {
    let mut errors = nodes.into_iter().filter_map(|(_, _, status)| status.err());
    match errors.next() {
        Some(error) => access::failure(error),
        None => Failure::new(Exit::Unavailable, "no node is known", "name the nodes in the client's configuration"),
    }
}

fn json(nodes: &[Answered]) -> String {
    let shown = |(id, address, status): &Answered| match status {
        Ok(status) => ShownNode::Reached(Box::new(shown_status(*address, status))),
        Err(error) => ShownNode::Unreached { id: id.0, address: *address, error: error.to_string() },
    };
    let shown = Shown { nodes: nodes.iter().map(shown).collect() };
    serde_json::to_string_pretty(&shown).expect("a status is numbers and strings, which JSON holds")
}

fn shown_status(address: SocketAddr, status: &NodeStatus) -> ShownStatus {
    let membership = &status.membership;
    let member = |member: &crate::types::Member| ShownMember {
        id: member.id.0,
        address: member.address,
        incarnation: member.incarnation.to_string(),
        voter: membership.is_voter(member.id),
        promoting: membership.promoting.contains(&member.id),
    };
    ShownStatus {
        id: status.id.0,
        address,
        pid: status.pid,
        incarnation: status.incarnation.to_string(),
        role: role(status.role),
        term: status.term.0,
        leader: status.leader.map(|(node, _)| node.0),
        first: status.first.0,
        last: status.last.index.0,
        last_term: status.last.term.0,
        durable: status.durable.index.0,
        commit: status.commit.0,
        applied: status.applied.0,
        members: membership.members.iter().map(member).collect(),
        voters_outgoing: membership.voters_outgoing.iter().map(|voter| voter.0).collect(),
        io: status.io.clone(),
        sync_mode: status.sync_mode.clone(),
        waiting: status.waiting.clone(),
        records: status.records,
        record_bytes: status.record_bytes,
        flushes: status.flushes,
        sessions: status.sessions,
        removals_failed: status.removals_failed,
        unremoved_segments: status.unremoved_segments,
        snapshots: snapshots::shown(&status.snapshots),
    }
}

fn table(nodes: &[Answered]) -> String {
    let head = ["id", "address", "role", "term", "last", "durable", "commit", "applied", "io"].map(str::to_owned);
    let rows: Vec<Result<[String; 9], String>> = nodes.iter().map(row).collect();
    let columns = rows.iter().flatten().chain([&head]);
    let widths = columns.fold([0; 9], |widths, row| std::array::from_fn(|at| row[at].len().max(widths[at])));
    let line = |row: &[String; 9]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let mut out = line(&head);
    for (row, (_, _, status)) in rows.iter().zip(nodes) {
        match row {
            Ok(row) => out.push_str(&line(row)),
            Err(text) => out.push_str(text),
        }
        let Ok(status) = status else { continue };
        if !status.waiting.is_empty() {
            out.push_str(&format!("    node {} waits: {}\n", status.id, status.waiting));
        }
        if status.unremoved_segments > 0 {
            out.push_str(&unremoved(status));
        }
        snapshots::lines(status).iter().for_each(|line| out.push_str(line));
    }
    let statuses = nodes.iter().filter_map(|(_, _, status)| status.as_ref().ok());
    if let Some(leader) = statuses.filter(|status| status.role == NodeRole::Leader).max_by_key(|status| status.term) {
        out.push_str(&members::summary(&leader.membership));
    }
    out
}

fn row((id, address, status): &Answered) -> Result<[String; 9], String> {
    let status = status.as_ref().map_err(|error| format!("{id}  {address}  {error}\n"))?;
    Ok([
        id.to_string(),
        address.to_string(),
        role(status.role).to_owned(),
        status.term.to_string(),
        status.last.to_string(),
        status.durable.to_string(),
        status.commit.to_string(),
        status.applied.to_string(),
        status.io.clone(),
    ])
}

fn unremoved(status: &NodeStatus) -> String {
    let segments = output::counted(status.unremoved_segments, "segment");
    let (id, failed) = (status.id, status.removals_failed);
    format!(
        "    node {id} cannot remove {segments} of its log that nobody needs, and tries again: {failed} times in vain; its log \
         says why\n"
    )
}

fn role(role: NodeRole) -> &'static str {
    match role {
        NodeRole::Follower => "follower",
        NodeRole::Candidate => "candidate",
        NodeRole::Leader => "leader",
        NodeRole::Learner => "learner",
        NodeRole::WithoutVoice => "without voice",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{SnapshotMade, SnapshotMaking, SnapshotStatus};
    use crate::types::{Incarnation, Index, LogId, Member, Membership, Term};

    fn nodes() -> Vec<Answered> {
        let address: SocketAddr = "127.0.0.1:7401".parse().unwrap();
        let last = LogId::new(Term(3), Index(12));
        let member = Member { id: NodeId(1), incarnation: Incarnation(9), address };
        let membership = Membership { members: vec![member], voters: [NodeId(1)].into(), ..Membership::default() };
        let status = NodeStatus {
            id: NodeId(1),
            incarnation: Incarnation(9),
            address,
            pid: 4711,
            role: NodeRole::Leader,
            term: Term(3),
            leader: Some((NodeId(1), address)),
            first: Index(1),
            last,
            durable: last,
            commit: Index(11),
            applied: Index(10),
            membership,
            io: "uring".into(),
            sync_mode: "dsync".into(),
            waiting: "a voter".into(),
            records: 5,
            record_bytes: 50,
            flushes: 2,
            sessions: 1,
            removals_failed: 7,
            unremoved_segments: 2,
            snapshots: SnapshotStatus {
                last: Some(SnapshotMade {
                    point: LogId::new(Term(2), Index(8)),
                    bytes: 4000,
                    milliseconds: 7,
                    core_microseconds: 9,
                }),
                making: Some(SnapshotMaking {
                    point: LogId::new(Term(3), Index(10)),
                    bytes: 1 << 20,
                    milliseconds: 2000,
                }),
                failure: "the disk is full".into(),
                ..SnapshotStatus::default()
            },
        };
        let dead = Error::Unavailable { reason: "nobody there".into() };
        vec![(NodeId(1), address, Ok(status)), (NodeId(2), "127.0.0.1:7402".parse().unwrap(), Err(dead))]
    }

    #[test]
    fn the_document_has_an_object_for_each_node_reached_or_not() {
        let document: serde_json::Value = serde_json::from_str(&json(&nodes())).unwrap();
        let [reached, dead] = document["nodes"].as_array().unwrap().as_slice() else { panic!("{document}") };
        let numbers =
            ["id", "pid", "term", "leader", "last", "commit", "applied"].map(|key| reached[key].as_u64().unwrap());
        assert_eq!(numbers, [1, 4711, 3, 1, 12, 11, 10]);
        assert_eq!((&reached["role"], &reached["io"]), (&"leader".into(), &"uring".into()));
        assert_eq!(reached["members"][0]["voter"], true);
        let snapshots = &reached["snapshots"];
        assert_eq!((&snapshots["last"]["bytes"], &snapshots["making"]["index"]), (&4000.into(), &10.into()));
        assert_eq!((&snapshots["fetching"], &snapshots["sending"]), (&().into(), &Vec::<u8>::new().into()));
        assert_eq!((&dead["id"], &dead["address"]), (&2.into(), &"127.0.0.1:7402".into()));
        assert!(dead["error"].as_str().unwrap().contains("nobody there"));
        assert!(dead.get("role").is_none());
    }

    #[test]
    fn the_table_has_a_line_for_each_node_and_says_what_is_waited_for() {
        let table = table(&nodes());
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 9, "{table}");
        assert_eq!(lines[8], "voters 1", "{table}");
        let of_snapshots = [
            "    node 1 has a snapshot at 8@2, 4000 bytes, made in 7 ms",
            "    node 1 writes a snapshot at 10@3, 1048576 bytes so far, 0.5 MiB/s, for 2 s",
            "    node 1 says of its snapshots: the disk is full",
        ];
        assert!(lines[3].contains("cannot remove 2 segments") && lines[3].contains("7 times"), "{table}");
        assert_eq!(lines[4..7], of_snapshots, "{table}");
        assert!(lines[1].contains("leader") && lines[1].contains("12@3"), "{table}");
        assert!(lines[2].contains("waits: a voter") && lines[7].contains("nobody there"), "{table}");
    }

    #[test]
    fn if_nobody_answers_it_is_a_failure() {
        assert_eq!(nobody(nodes()).exit, Exit::Unavailable);
        assert_eq!(nobody(Vec::new()).exit, Exit::Unavailable);
    }
}
