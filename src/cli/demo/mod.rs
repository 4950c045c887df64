//! `trilith demo`: the whole story in one command.
//!
//! ```text
//!   three nodes as processes ◀── records ── several pipelined clients ──▶ journal: what was acknowledged
//!        ▲                                                                     │
//!        └── the leader is killed, twice, in the middle, and restarted         ▼
//!   every node's records, read back ───────────────────────────────────▶ compared, one by one
//! ```
//!
//! The journal is kept in this process, which no node is part of. Code 0 only if nothing was lost, changed or doubled.

mod check;
mod load;
mod report;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::dev::{PATIENCE, program};
use super::local::{LocalCluster, LocalOptions};
use super::output::{self, Format};
use super::{Exit, Failure};
use crate::limits::{RECORD_BYTES_MAX, SEGMENT_BYTES_DEFAULT};
use crate::types::NodeId;
use load::Shared;

/// Nodes of the demonstration.
const NODES: u64 = 3;
/// Records that may be sent beyond the place of a kill, before it.
const RECORDS_AHEAD: u64 = 8192;
/// Size of a record that the demonstration makes itself.
const RECORD_BYTES: usize = 128;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Append the lines of this file instead of records made up here
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// How many records to make up
    #[arg(long, value_name = "COUNT", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    records: u64,
    /// How many times the leader is killed
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = clap::value_parser!(u64).range(0..=100))]
    kills: u64,
    /// Where the cluster lies while it runs; removed at the end unless it is given here
    #[arg(long, alias = "directory", value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Which way to the disk: auto, uring or blocking
    #[arg(long, value_name = "WAY")]
    io: Option<String>,
    /// How to print the report
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let records = Arc::new(records(arguments)?);
    let directory = Workplace::new(arguments.dir.as_deref())?;
    let options = LocalOptions { nodes: NODES, segment_bytes: SEGMENT_BYTES_DEFAULT, io: arguments.io.clone() };
    let mut cluster = LocalCluster::prepare(&directory.path, &program()?, &options)?;
    cluster.start_all(PATIENCE)?;
    let shared = Arc::new(Shared::new(records.len() as u64));
    let client = cluster.client()?;
    let loading = {
        let (records, shared) = (records.clone(), shared.clone());
        std::thread::spawn(move || load::run(&client, &records, &shared))
    };
    let kills = kill_leaders(&mut cluster, &shared, arguments.kills);
    shared.allow(u64::MAX);
    let loaded = loading
        .join()
        .map_err(|_| Failure::new(Exit::Other, "the clients' thread panicked", "report this with the message above"))?;
    let (journal, kills) = (loaded?, kills?);
    let io = cluster.child(NodeId(1)).map(|child| child.greeting.clone()).unwrap_or_default();
    let checked = check::run(&cluster.client()?, &records, &journal)?;
    cluster.stop_all(PATIENCE)?;
    let report = report::Report::new(&journal, &checked, &kills, &io);
    output::print(&match arguments.output {
        Format::Table => report.table(),
        Format::Json => report.json(),
    })?;
    report.verdict()
}

/// When a leader was killed, and how long no record was acknowledged after it.
#[derive(Clone, Copy, Debug)]
struct Kill {
    node: NodeId,
    at: Instant,
    unacknowledged: u64,
}

/// Kills the leader at even distances of the way, and starts it again.
fn kill_leaders(cluster: &mut LocalCluster, shared: &Shared, count: u64) -> Result<Vec<Kill>, Failure> {
    let mut kills = Vec::new();
    let due_at = |ordinal: u64| shared.total * ordinal / (count + 1);
    for ordinal in 1..=count {
        let due = due_at(ordinal);
        // Up to the next kill and a little further: that one comes when this one's node is back.
        shared.allow(if ordinal < count { due_at(ordinal + 1) + RECORDS_AHEAD } else { shared.total });
        if !shared.wait_for(due) {
            break;
        }
        let Some(leader) = shared.leader() else { continue };
        let unacknowledged = shared.sent().saturating_sub(shared.acknowledged());
        let at = Instant::now();
        cluster.kill(leader)?;
        shared.note(&format!("node {leader}, the leader, is killed with {unacknowledged} records on their way"));
        kills.push(Kill { node: leader, at, unacknowledged });
        // It comes back only after the others have gone on without it.
        shared.wait_for((due + 1).max(shared.acknowledged() + 1));
        std::thread::sleep(Duration::from_millis(200));
        cluster.start(leader, PATIENCE)?;
    }
    Ok(kills)
}

fn records(arguments: &Arguments) -> Result<Vec<Bytes>, Failure> {
    let Some(path) = &arguments.input else {
        return Ok((0..arguments.records).map(made_up).collect());
    };
    let text = std::fs::read(path).map_err(|error| {
        Failure::new(Exit::Usage, format!("{}: {error}", path.display()), "give a file that can be read with --input")
    })?;
    let mut lines: Vec<Bytes> = text.split(|&byte| byte == b'\n').map(Bytes::copy_from_slice).collect();
    if lines.last().is_some_and(Bytes::is_empty) {
        lines.pop();
    }
    match lines.iter().position(|line| line.len() > RECORD_BYTES_MAX) {
        Some(at) => Err(Failure::new(
            Exit::Usage,
            format!("{} line {}: {} bytes", path.display(), at + 1, lines[at].len()),
            format!("a record is at most {RECORD_BYTES_MAX} bytes; split the line"),
        )),
        None if lines.is_empty() => {
            Err(Failure::new(Exit::Usage, format!("{} is empty", path.display()), "give a file with lines in it"))
        }
        None => Ok(lines),
    }
}

/// A record like no other.
fn made_up(number: u64) -> Bytes {
    let mut text = format!("record {number} ");
    while text.len() < RECORD_BYTES {
        text.push(char::from(b'a' + (number % 26) as u8));
    }
    Bytes::from(text)
}

/// A directory for the time of the demonstration.
struct Workplace {
    path: PathBuf,
    is_kept: bool,
}

impl Workplace {
    fn new(given: Option<&Path>) -> Result<Workplace, Failure> {
        let cannot = |error: std::io::Error| {
            Failure::new(Exit::Other, format!("the working directory: {error}"), "start it in a directory that exists")
        };
        let here = std::env::current_dir().map_err(cannot)?;
        let path = given.map_or_else(|| here.join(format!("trilith-demo-{}", std::process::id())), Path::to_owned);
        Ok(Workplace { path, is_kept: given.is_some() })
    }
}

impl Drop for Workplace {
    fn drop(&mut self) {
        if !self.is_kept
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            eprintln!("{} could not be removed: {error}", self.path.display());
        }
    }
}
