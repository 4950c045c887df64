//! `trilith sim`: whole clusters in one thread, from a seed.
//!
//! A run that breaks a rule is a bug of ours; its seed and the flags that go with it replay it to the byte.

use super::exit::{Exit, Failure};
use super::output::{self, Format};
use crate::sim::{Options, Report, Simulation, Violation};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The first seed
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// How many seeds to run, one after the other
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// How many nodes: 1 to 7; drawn from the seed unless given
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u64).range(1..=7))]
    nodes: Option<u64>,
    /// In which runs members come and go while clients write: in one seed of four, in all, or in none
    #[arg(long, value_enum, value_name = "WHEN", default_value = "drawn")]
    changes: When,
    /// In which runs nodes keep fewer sessions than there are clients: in one seed of five, in all, or in none
    #[arg(long, value_enum, value_name = "WHEN", default_value = "drawn")]
    few_sessions: When,
    /// In which runs logs are trimmed and purged, so that nodes need each other's snapshots: in one seed of four, in all, or
    /// in none
    #[arg(long, value_enum, value_name = "WHEN", default_value = "drawn")]
    purge: When,
    /// In which runs clients give up what was refused, and send something else under its number: in one seed of five, in all,
    /// or in none
    #[arg(long, value_enum, value_name = "WHEN", default_value = "drawn")]
    impatient: When,
    /// Read by lease, on clocks that differ within the bound
    #[arg(long)]
    leases: bool,
    /// End well at the first violation of this rule (A, D, E, F, G, H), and badly if no seed shows one: for programs
    /// with a deliberate bug
    #[arg(long, value_name = "ORACLE")]
    expect_violation: Option<String>,
    /// How to print the reports
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum When {
    Drawn,
    Always,
    Never,
}

/// Runs the seeds; the first violation ends it.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut reports = Vec::new();
    for seed in arguments.seed..arguments.seed.saturating_add(arguments.seeds) {
        match (run_seed(arguments, seed), &arguments.expect_violation) {
            (Ok(report), _) => reports.push(report),
            (Err(violation), Some(expected)) => return expected_violation(arguments, expected, &violation),
            (Err(violation), None) => return Err(failure(&violation, arguments)),
        }
    }
    output::print(&match arguments.output {
        Format::Table => table(&reports),
        Format::Json => json(&reports),
    })?;
    match &arguments.expect_violation {
        None => Ok(()),
        Some(oracle) => Err(Failure::new(
            Exit::Other,
            format!("no violation of {oracle} in {} seeds", arguments.seeds),
            "give more seeds, or look why the deliberate bug does no harm",
        )),
    }
}

fn run_seed(arguments: &Arguments, seed: u64) -> Result<Report, Violation> {
    let options = match arguments.nodes {
        Some(nodes) => Options::drawn_for(nodes as usize, seed),
        None => Options::drawn(seed),
    };
    let options = match arguments.changes {
        When::Drawn => options,
        When::Always => options.with_changes(seed),
        When::Never => Options { changes: None, ..options },
    };
    let options = match arguments.few_sessions {
        When::Drawn => options,
        When::Always => options.with_few_sessions(seed),
        When::Never => options.with_all_sessions(),
    };
    let options = match arguments.purge {
        When::Drawn => options,
        When::Always => options.with_purge(seed),
        When::Never => Options { purge: None, ..options },
    };
    let options = match arguments.impatient {
        When::Drawn => options,
        When::Always => options.with_impatient_clients(seed),
        When::Never => Options { impatience: None, ..options },
    };
    let options = if arguments.leases { options.with_leases() } else { options };
    Simulation::run(seed, &options)
}

fn expected_violation(arguments: &Arguments, expected: &str, violation: &Violation) -> Result<(), Failure> {
    if !expected.contains(violation.oracle.letter()) {
        return Err(failure(violation, arguments));
    }
    let seeds = violation.seed - arguments.seed + 1;
    output::print(&format!("found after {seeds} seeds: {violation}"))
}

fn failure(violation: &Violation, arguments: &Arguments) -> Failure {
    let nodes = arguments.nodes.map(|nodes| format!(" --nodes {nodes}")).unwrap_or_default();
    let when = |flag: &str, when| match when {
        When::Drawn => String::new(),
        When::Always => format!(" --{flag} always"),
        When::Never => format!(" --{flag} never"),
    };
    let (changes, few) = (when("changes", arguments.changes), when("few-sessions", arguments.few_sessions));
    let (purge, impatient) = (when("purge", arguments.purge), when("impatient", arguments.impatient));
    let leases = if arguments.leases { " --leases" } else { "" };
    let next_step = format!(
        "replay it with `trilith sim --seed {}{nodes}{changes}{few}{purge}{impatient}{leases}`",
        violation.seed
    );
    Failure::new(Exit::Corrupt, violation.to_string(), next_step)
}

pub(super) fn table(reports: &[Report]) -> String {
    let mut lines = Vec::new();
    if let [report] = reports {
        lines.extend(report.counts().iter().map(|(name, count)| format!("{name:<24} {count}")));
        lines.push(format!("{:<24} {:016x}", "trace_hash", report.trace_hash));
        return lines.join("\n");
    }
    lines.push(format!("{:<24} {}", "seeds", reports.len()));
    let names = Report::default().counts();
    for (at, (name, _)) in names.iter().enumerate().filter(|(_, (name, _))| !["nodes", "seed"].contains(name)) {
        let sum: u64 = reports.iter().map(|report| report.counts()[at].1).sum();
        lines.push(format!("{name:<24} {sum}"));
    }
    lines.join("\n")
}

fn json(reports: &[Report]) -> String {
    let document = |report: &Report| {
        let mut fields: Vec<String> =
            report.counts().iter().map(|(name, count)| format!("\"{name}\":{count}")).collect();
        fields.push(format!("\"trace_hash\":\"{:016x}\"", report.trace_hash));
        format!("{{{}}}", fields.join(","))
    };
    let documents: Vec<String> = reports.iter().map(document).collect();
    format!("[{}]", documents.join(",\n"))
}
