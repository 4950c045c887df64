//! Follow a log: one thread appends, another is given what is durable, each record once and in order.
//!
//!     cargo run --example follow_log [DIRECTORY]

use std::error::Error;
use std::path::PathBuf;
use std::thread;

use trilith::types::{Entry, GroupId, Index, Payload};
use trilith::wal::Wal;
use trilith::wal::handle::{self, Event, Options, Tail};

const GROUP: GroupId = GroupId(0);

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("follow_log"), PathBuf::from);
    let mut options = Options::new(directory);
    // Small segments, since this is a small log.
    options.segment_bytes = 1 << 20;
    let (wal, _) = Wal::open(options)?;

    // From the first record on; it may wait on another thread, or in a task: see `Tail::next_event`.
    let tail = wal.tail(GROUP, Index::ZERO);
    let follower = thread::spawn(move || follow(tail));

    for number in 1..=10_000 {
        // A `Pending` that nobody waits for: the record becomes durable all the same.
        drop(wal.append_records(GROUP, [format!("record {number}")])?);
    }
    // What has been given can be taken back: the follower is told.
    let mut watch = wal.watch(GROUP);
    watch.at_least(Index(10_000)).wait()?;
    wal.truncate_suffix(GROUP, Index(9_999))?.wait()?;
    wal.append_records(GROUP, ["the end"])?.wait()?;

    // The tail still gives what is durable. When it has ended, too, the directory is free.
    wal.close()?;
    let held = follower.join().expect("it does not panic")?;
    println!("the follower holds {} records, the last is {:?}", held.len(), held[held.len() - 1]);
    Ok(())
}

/// Keeps a copy of what the log holds.
fn follow(mut tail: Tail) -> Result<Vec<String>, handle::Error> {
    let mut held = Vec::new();
    // As an iterator a tail blocks, until the log is closed.
    for event in &mut tail {
        match event? {
            Event::Entry(entry) => held.push(text(&entry)),
            // Indexes count from 1: what stands at `from` and behind it is no more.
            Event::Truncated { from } => held.truncate(from.0 as usize - 1),
        }
    }
    Ok(held)
}

fn text(entry: &Entry) -> String {
    match &entry.payload {
        Payload::Data(data) => String::from_utf8_lossy(&data.bytes).into_owned(),
        other => format!("{other:?}"),
    }
}
