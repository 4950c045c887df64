//! What a run is told by: what it depends on, each round, and each aim with what was found.

use serde::Serialize;

use super::load::{Phase, State};
use crate::cli::bench::cluster::Arguments;
use crate::cli::bench::median;
use crate::cli::bench::surroundings::{Surroundings, flush_words};
use crate::cli::output::counted;
use crate::disk::FlushTimes;

const RATE_RATIO_MIN: f64 = 0.9;
const P99_RATIO_MAX: f64 = 1.5;
const CORE_MICROSECONDS_MAX: f64 = 1000.0;

/// A snapshot, and what was without one just before and just after.
#[derive(Debug)]
pub struct Round {
    pub before: Phase,
    pub with: Phase,
    pub after: Phase,
    pub nodes: Vec<Node>,
}

/// A node's part in a round.
#[derive(Clone, Debug, Serialize)]
pub struct Node {
    pub id: u64,
    /// From the first byte to the last.
    pub milliseconds: u64,
    /// How long the core worked (CPU time) to take the state, or to hand it over: the longer of both.
    pub core_microseconds: u64,
    pub bytes: u64,
    /// The most that the process had in the time without, just before.
    pub memory_before: u64,
    /// The most while the snapshots were made.
    pub memory_during: u64,
}

/// One JSON document.
#[derive(Debug, Serialize)]
pub struct Report {
    surroundings: Surroundings,
    disk_fdatasync_microseconds: f64,
    disk_dsync_microseconds: f64,
    nodes: u64,
    state_bytes: u64,
    state_entries: u64,
    entries_changed: u64,
    bytes_per_change: usize,
    in_flight: usize,
    clients: usize,
    snapshot_bytes_per_second: u64,
    rounds: Vec<ShownRound>,
    aims: Vec<Aim>,
}

#[derive(Debug, Serialize)]
struct ShownRound {
    without: [ShownPhase; 2],
    with: ShownPhase,
    rate_ratio: f64,
    p99_ratio: f64,
    nodes: Vec<Node>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct ShownPhase {
    seconds: f64,
    records: u64,
    records_per_second: f64,
    p50_microseconds: f64,
    p99_microseconds: f64,
    max_microseconds: f64,
}

/// What is wanted, and what was found.
#[derive(Debug, Serialize)]
struct Aim {
    what: &'static str,
    found: f64,
    /// `at least` or `at most` so much.
    bound: &'static str,
    aim: f64,
    is_met: bool,
}

impl Report {
    pub fn new(
        arguments: &Arguments,
        state: State,
        (in_flight, clients): (usize, usize),
        flush: &FlushTimes,
        rounds: Vec<Round>,
    ) -> Report {
        let micro = |time: std::time::Duration| time.as_nanos() as f64 / 1000.0;
        let rounds: Vec<ShownRound> = rounds.into_iter().map(ShownRound::new).collect();
        Report {
            surroundings: Surroundings::of(&arguments.directory),
            disk_fdatasync_microseconds: micro(flush.fdatasync),
            disk_dsync_microseconds: micro(flush.dsync),
            nodes: arguments.nodes,
            state_bytes: state.bytes,
            state_entries: state.still + state.changed,
            entries_changed: state.changed,
            bytes_per_change: state.changed_bytes,
            in_flight,
            clients,
            snapshot_bytes_per_second: arguments.snapshot.snapshot_bytes_per_second,
            aims: aims(&rounds, state),
            rounds,
        }
    }

    pub fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("numbers and strings are JSON")
    }

    pub fn table(&self) -> String {
        let disk = flush_words(self.disk_fdatasync_microseconds, self.disk_dsync_microseconds);
        let rate = mib(self.snapshot_bytes_per_second);
        let mut lines = vec![
            format!("trilith     {}", self.surroundings.line()),
            format!("disk alone  {disk}"),
            format!(
                "state       {:.0} MiB in {} entries on each of {}; each writes its snapshot at {rate:.0} MiB/s, one after another",
                mib(self.state_bytes),
                self.state_entries,
                counted(self.nodes, "node"),
            ),
            format!(
                "load        changes of {} of them, {} bytes each, {} in flight, {}",
                self.entries_changed,
                self.bytes_per_change,
                self.in_flight,
                counted(self.clients as u64, "client")
            ),
            "round | changes/s without, with, without | p99 ms | seconds with | changes/s ratio | p99 ratio".to_owned(),
        ];
        lines.extend(self.rounds.iter().enumerate().map(|(number, round)| round.line(number + 1)));
        lines.push("round | node | wrote MiB | in s | core's work to take or hand over the state, us | memory MiB before, at most during".to_owned());
        for (number, round) in self.rounds.iter().enumerate() {
            lines.extend(round.nodes.iter().map(|node| node.line(number + 1)));
        }
        lines.push("aim | found | wanted |".to_owned());
        lines.extend(self.aims.iter().map(Aim::line));
        lines.join("\n")
    }
}

impl ShownRound {
    fn new(round: Round) -> ShownRound {
        let [before, with, after] = [&round.before, &round.with, &round.after].map(ShownPhase::of);
        let without = |of: fn(&ShownPhase) -> f64| f64::midpoint(of(&before), of(&after));
        let ratio = |of: fn(&ShownPhase) -> f64| of(&with) / without(of);
        ShownRound {
            rate_ratio: ratio(|phase| phase.records_per_second),
            p99_ratio: ratio(|phase| phase.p99_microseconds),
            without: [before, after],
            with,
            nodes: round.nodes,
        }
    }

    fn line(&self, number: usize) -> String {
        let phases = [self.without[0], self.with, self.without[1]];
        let each = |show: fn(&ShownPhase) -> String| phases.each_ref().map(show).join(", ");
        format!(
            "{number:5} | {} | {} | {:.1} | {:.2} | {:.2}",
            each(|phase| format!("{:.0}", phase.records_per_second)),
            each(|phase| format!("{:.2}", phase.p99_microseconds / 1000.0)),
            self.with.seconds,
            self.rate_ratio,
            self.p99_ratio
        )
    }

    fn core_microseconds(&self) -> u64 {
        self.nodes.iter().map(|node| node.core_microseconds).max().unwrap_or(0)
    }

    /// By how much the memory of the node that grew most has grown.
    fn growth_bytes(&self) -> u64 {
        let growths = self.nodes.iter().map(|node| node.memory_during.saturating_sub(node.memory_before));
        growths.max().unwrap_or(0)
    }
}

impl ShownPhase {
    fn of(phase: &Phase) -> ShownPhase {
        let quantile = |quantile| phase.latency.value_at_quantile(quantile) as f64 / 1000.0;
        let seconds = phase.time.as_secs_f64();
        ShownPhase {
            seconds,
            records: phase.records,
            records_per_second: phase.records as f64 / seconds,
            p50_microseconds: quantile(0.5),
            p99_microseconds: quantile(0.99),
            max_microseconds: phase.latency.max() as f64 / 1000.0,
        }
    }
}

impl Node {
    fn line(&self, round: usize) -> String {
        format!(
            "{round:5} | {:4} | {:9.1} | {:.1} | {} | {:.1}, {:.1}",
            self.id,
            mib(self.bytes),
            self.milliseconds as f64 / 1000.0,
            self.core_microseconds,
            mib(self.memory_before),
            mib(self.memory_during)
        )
    }
}

impl Aim {
    fn at_least(what: &'static str, found: f64, aim: f64) -> Aim {
        Aim { what, found, bound: "at least", aim, is_met: found >= aim }
    }

    fn at_most(what: &'static str, found: f64, aim: f64) -> Aim {
        Aim { what, found, bound: "at most", aim, is_met: found <= aim }
    }

    fn line(&self) -> String {
        let met = if self.is_met { "met" } else { "missed" };
        format!("{} | {:.2} | {} {:.2} | {met}", self.what, self.found, self.bound, self.aim)
    }
}

fn aims(rounds: &[ShownRound], state: State) -> Vec<Aim> {
    let most = |of: fn(&ShownRound) -> u64| rounds.iter().map(of).max().unwrap_or(0);
    vec![
        Aim::at_least(
            "changes/s with : without, median of rounds",
            median(rounds, |round| round.rate_ratio),
            RATE_RATIO_MIN,
        ),
        Aim::at_most("p99 with : without, median of rounds", median(rounds, |round| round.p99_ratio), P99_RATIO_MAX),
        Aim::at_most(
            "memory grew by MiB, worst node and round; wanted: what changes meanwhile",
            mib(most(ShownRound::growth_bytes)),
            mib(state.growth_bytes_max()),
        ),
        Aim::at_most(
            "core's work to take or hand over the state, us, worst node and round",
            most(ShownRound::core_microseconds) as f64,
            CORE_MICROSECONDS_MAX,
        ),
    ]
}

fn median(rounds: &[ShownRound], of: fn(&ShownRound) -> f64) -> f64 {
    median::median(rounds.iter().map(of)).unwrap_or(f64::NAN)
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
