//! `peers raft`: the protocol alone. Three replicas in one thread, with storage in memory that is done at once and a
//! network that loses nothing, in our core and in raft-rs's.
//!
//! Equal work: the same payload, handed in with the same number of entries at once, kept in memory on all three (the
//! oldest go when there are many), committed and applied on all three. Both cores have pre-vote and check-quorum on, the
//! same times in ticks, and tell followers the commit index with the next message rather than with one of its own. At the
//! end of each run every entry must have been applied by each of the three, as often and with the bytes that were handed
//! in.

mod ours;
mod table;
mod theirs;

use std::time::{Duration, Instant};

use serde::Serialize;
use trilith::cli::{Exit, Failure};

use table::Format;

pub const NODES: u64 = 3;
pub const HEARTBEAT_TICKS: u32 = 5;
/// Election timeouts lie between this and twice as much.
pub const ELECTION_TICKS: u32 = 30;
/// Entries that storage keeps at least; as many again may come before the oldest go.
pub const KEPT_ENTRIES: usize = 4096;
pub const PAYLOAD: &[u8] = &[7; 128];
/// Elections and batches are done in runs of so many between two looks at the clock.
const STEPS_PER_READING: u32 = 16;

#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// How long each core is measured in each round
    #[arg(long, default_value = "1000", value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    milliseconds: u64,
    /// Rounds of each case, in turn; of them the median counts
    #[arg(long, default_value = "9", value_parser = clap::value_parser!(u16).range(1..=99))]
    rounds: u16,
    /// Only this core
    #[arg(long, value_name = "CORE")]
    only: Option<Kind>,
    /// How to print the result
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Trilith,
    RaftRs,
}

/// What is done again and again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Case {
    /// So many entries are handed in and carried to their commit.
    Batch(usize),
    /// The leader falls silent, the others elect one of them, and it hears of that.
    Elections,
}

const CASES: [Case; 4] = [Case::Batch(1), Case::Batch(16), Case::Batch(256), Case::Elections];

/// Three replicas that elected a leader.
pub trait Cluster {
    /// Hands so many entries to the leader at once and delivers messages until they are committed there. The payload is
    /// one that was made before, as by whoever received it.
    fn commit(&mut self, entries: usize);
    /// One election: until another node leads, its first entry is committed and all three follow it.
    fn elect(&mut self);
    /// Lets time pass until all three have applied everything; what each of them applied.
    fn applied(&mut self) -> Vec<Applied>;
}

/// What one replica's state machine was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Applied {
    pub entries: u64,
    pub bytes: u64,
}

impl Applied {
    /// Entries without data are the protocol's own.
    pub fn apply(&mut self, data: &[u8]) {
        if !data.is_empty() {
            self.entries += 1;
            self.bytes += std::hint::black_box(data).len() as u64;
        }
    }
}

/// One round of one core, per second.
#[derive(Clone, Copy, Debug)]
pub struct Rate(pub f64);

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for case in CASES {
        let wanted = |kind: &Kind| arguments.only.is_none_or(|only| only == *kind);
        let kinds: Vec<Kind> = [Kind::Trilith, Kind::RaftRs].into_iter().filter(wanted).collect();
        let mut rates = vec![Vec::new(); kinds.len()];
        for _ in 0..arguments.rounds {
            for (kind, rates) in kinds.iter().zip(&mut rates) {
                let rate = measure(*kind, case, Duration::from_millis(arguments.milliseconds))?;
                rates.push(rate.0);
            }
        }
        rows.push(table::Row::of(case, kinds.into_iter().zip(rates).collect()));
    }
    println!("{}", table::show(&rows, arguments.output));
    Ok(())
}

fn measure(kind: Kind, case: Case, time: Duration) -> Result<Rate, Failure> {
    match kind {
        Kind::Trilith => measure_cluster(&mut ours::Ours::elected(), kind, case, time),
        Kind::RaftRs => measure_cluster(&mut theirs::Theirs::elected(), kind, case, time),
    }
}

pub fn measure_cluster<C: Cluster>(cluster: &mut C, kind: Kind, case: Case, time: Duration) -> Result<Rate, Failure> {
    // Caches and allocators are warm, and storage is as full as it gets.
    let mut handed_in = 0;
    while handed_in < 3 * KEPT_ENTRIES {
        cluster.commit(256);
        handed_in += 256;
    }
    let begin = Instant::now();
    let mut steps = 0;
    while begin.elapsed() < time {
        for _ in 0..STEPS_PER_READING {
            match case {
                Case::Batch(entries) => cluster.commit(entries),
                Case::Elections => cluster.elect(),
            }
        }
        steps += STEPS_PER_READING as usize;
    }
    let elapsed = begin.elapsed().as_secs_f64();
    let done = match case {
        Case::Batch(entries) => steps * entries,
        Case::Elections => steps,
    };
    if let Case::Batch(_) = case {
        handed_in += done;
    }
    let wanted = Applied { entries: handed_in as u64, bytes: (handed_in * PAYLOAD.len()) as u64 };
    for (node, applied) in cluster.applied().into_iter().enumerate() {
        if applied != wanted {
            let message = format!("{kind:?}, {case:?}: node {} applied {applied:?} of {wanted:?}", node + 1);
            return Err(Failure::new(Exit::Corrupt, message, "look at that core's messages"));
        }
    }
    Ok(Rate(done as f64 / elapsed))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A core that loses an entry now and then.
    struct Forgetful(ours::Ours);

    impl Cluster for Forgetful {
        fn commit(&mut self, entries: usize) {
            self.0.commit(entries - 1);
        }

        fn elect(&mut self) {
            self.0.elect();
        }

        fn applied(&mut self) -> Vec<Applied> {
            self.0.applied()
        }
    }

    const SHORT: Duration = Duration::from_millis(5);

    #[test]
    fn both_cores_do_all_of_the_work() {
        for case in CASES {
            for kind in [Kind::Trilith, Kind::RaftRs] {
                assert!(measure(kind, case, SHORT).is_ok_and(|rate| rate.0 > 0.0), "{kind:?} {case:?}");
            }
        }
    }

    #[test]
    fn a_core_that_loses_an_entry_ends_the_run() {
        let mut forgetful = Forgetful(ours::Ours::elected());
        let failure = measure_cluster(&mut forgetful, Kind::Trilith, Case::Batch(16), SHORT).unwrap_err();
        assert_eq!(failure.exit, Exit::Corrupt);
    }
}
