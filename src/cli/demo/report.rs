//! What the demonstration tells the person, and its exit code.

use std::time::{Duration, Instant};

use super::Kill;
use super::check::Checked;
use super::load::Journal;
use crate::cli::{Exit, Failure};

/// The figures of a run.
#[derive(Debug)]
pub struct Report {
    acknowledged: u64,
    unknown: u64,
    checked: Checked,
    kills: Vec<(u64, u64, Duration)>,
    per_second: f64,
    p50: Duration,
    p99: Duration,
    io: String,
}

impl Report {
    pub fn new(journal: &Journal, checked: &Checked, kills: &[Kill], io: &str) -> Report {
        let acknowledged = journal.indexes.iter().flatten().count() as u64;
        let mut latencies: Vec<Duration> = journal.batches.iter().map(|(_, latency)| *latency).collect();
        latencies.sort();
        let at = |per_cent: usize| latencies.get(latencies.len() * per_cent / 100).copied().unwrap_or_default();
        let outage = |kill: &Kill| (kill.node.0, kill.unacknowledged, silence_after(journal, kill.at));
        Report {
            acknowledged,
            unknown: journal.indexes.len() as u64 - acknowledged,
            checked: checked.clone(),
            kills: kills.iter().map(outage).collect(),
            per_second: acknowledged as f64 / journal.elapsed.as_secs_f64().max(f64::EPSILON),
            p50: at(50),
            p99: at(99),
            io: io.to_owned(),
        }
    }

    pub fn table(&self) -> String {
        let Checked { nodes, lost, changed, doubled, differing, records } = &self.checked;
        let mut lines = vec![
            format!("acknowledged        {}", self.acknowledged),
            format!("outcome unknown     {}", self.unknown),
            format!("lost                {lost}"),
            format!("changed             {changed}"),
            format!("doubled             {doubled}"),
            format!("nodes compared      {} ({records} records each, {differing} differing)", nodes.len()),
            format!("throughput          {:.0} records/s, kills and restarts included", self.per_second),
            format!("latency of a batch  p50 {:.2?}, p99 {:.2?}", self.p50, self.p99),
        ];
        for (node, unacknowledged, silence) in &self.kills {
            lines.push(format!(
                "leader killed       node {node}, {unacknowledged} records on their way, {silence:.0?} until the next \
                 acknowledgement"
            ));
        }
        lines.push(format!("io                  {}", self.io));
        lines.join("\n")
    }

    pub fn json(&self) -> String {
        let Checked { nodes, lost, changed, doubled, differing, records } = &self.checked;
        let kills: Vec<_> = self
            .kills
            .iter()
            .map(|(node, unacknowledged, silence)| {
                serde_json::json!({
                    "node": node,
                    "unacknowledged": unacknowledged,
                    "milliseconds_without_leader": silence.as_millis() as u64,
                })
            })
            .collect();
        serde_json::json!({
            "acknowledged": self.acknowledged,
            "outcome_unknown": self.unknown,
            "lost": lost,
            "changed": changed,
            "doubled": doubled,
            "nodes_compared": nodes.len(),
            "nodes_differing": differing,
            "records_each": records,
            "records_per_second": self.per_second.round(),
            "p50_microseconds": self.p50.as_micros() as u64,
            "p99_microseconds": self.p99.as_micros() as u64,
            "kills": kills,
            "io": self.io,
        })
        .to_string()
    }

    /// Nothing lost, changed, doubled, and all nodes equal; else the exit code that says so.
    pub fn verdict(&self) -> Result<(), Failure> {
        let Checked { lost, changed, doubled, differing, .. } = self.checked;
        if lost + changed + doubled + differing == 0 && self.acknowledged > 0 {
            return Ok(());
        }
        Err(Failure::new(
            Exit::Corrupt,
            format!("{lost} lost, {changed} changed, {doubled} doubled, {differing} nodes differ"),
            "this must never happen: run it again with --dir DIR, keep the directory, and report it",
        ))
    }
}

/// From the kill to the first acknowledgement of a batch that was under way or sent after it: the longest silence that
/// began within a second of the kill.
fn silence_after(journal: &Journal, kill: Instant) -> Duration {
    let mut times: Vec<Instant> = journal.batches.iter().map(|(at, _)| *at).filter(|at| *at >= kill).collect();
    times.push(kill);
    times.sort();
    let near = |pair: &&[Instant]| pair[0] <= kill + Duration::from_secs(1);
    times.windows(2).filter(near).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}
