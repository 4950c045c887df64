//! `peers wal`: the cases, the rounds, and a process for each run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use trilith::cli::{Exit, Failure};

use crate::disk;
use crate::engines::{Counted, Kind, Settings};
use crate::run::Measured;
use crate::table::{self, Header, Round, Row};

/// What an engine has on the disk: what it prepares, and what the one that lets nothing go writes in a second.
const PREPARED_BYTES: u64 = 1 << 30;
const KEPT_BYTES_PER_SECOND: u64 = 512 << 20;
/// How long opening, closing and counting may take.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(10);

/// What is appended, by how many threads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Case {
    pub threads: usize,
    pub bytes: usize,
    /// Entries that each thread keeps on their way.
    pub in_flight: usize,
}

const fn case(threads: usize, bytes: usize, in_flight: usize) -> Case {
    Case { threads, bytes, in_flight }
}

const CASES: [Case; 7] = [
    case(1, 128, 1),
    case(8, 128, 1),
    case(64, 128, 1),
    case(64, 1024, 1),
    case(64, 16_384, 1),
    case(2, 128, 512),
    case(2, 128, 8192),
];

#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Where the logs are made, and removed at the end [default: target/ of this workspace]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// How long each engine is measured in each round
    #[arg(long, default_value = "5", value_parser = clap::value_parser!(u16).range(1..=3600))]
    seconds: u16,
    /// Rounds of each case; of them the median counts
    #[arg(long, default_value = "3", value_parser = clap::value_parser!(u16).range(1..=99))]
    rounds: u16,
    /// Only these engines (again for more than one)
    #[arg(long, value_name = "ENGINE")]
    only: Vec<Kind>,
    /// One round of 0.3 s: shows that everything works, and no more
    #[arg(long, conflicts_with_all = ["seconds", "rounds"])]
    quick: bool,
    /// Leave the logs where they are if a run fails
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    settings: Settings,
    /// How to print the result
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

/// The form of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
enum Format {
    /// For people
    Table,
    /// A list of rows
    Json,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let place = Place::make(arguments.dir.as_deref())?;
    let conductor = Conductor::new(arguments, &place.path)?;
    let most = (conductor.warm_up + conductor.time).as_secs() + 1;
    disk::check_room(&place.path, PREPARED_BYTES + most * KEPT_BYTES_PER_SECOND)?;
    let measured = conductor.conduct();
    if measured.is_err() && arguments.keep {
        eprintln!("the logs stay in {}", place.path.display());
        std::mem::forget(place);
    }
    let (header, rows) = measured?;
    match arguments.output {
        Format::Table => println!("{header}\n{}", table::table(&rows)),
        Format::Json => {
            eprintln!("{header}");
            println!("{}", table::json(&rows));
        }
    }
    Ok(())
}

struct Conductor<'a> {
    program: PathBuf,
    directory: &'a Path,
    engines: Vec<Kind>,
    rounds: u16,
    warm_up: Duration,
    time: Duration,
    settings: &'a Settings,
}

impl<'a> Conductor<'a> {
    fn new(arguments: &'a Arguments, directory: &'a Path) -> Result<Conductor<'a>, Failure> {
        let program = std::env::current_exe().map_err(|error| {
            let message = format!("this program does not find itself: {error}");
            Failure::new(Exit::Other, message, "mount /proc")
        })?;
        let is_wanted = |kind: &Kind| arguments.only.is_empty() || arguments.only.contains(kind);
        let time = Duration::from_secs(u64::from(arguments.seconds));
        let (rounds, time) = if arguments.quick { (1, Duration::from_millis(300)) } else { (arguments.rounds, time) };
        Ok(Conductor {
            program,
            directory,
            engines: Kind::ALL.into_iter().filter(is_wanted).collect(),
            rounds,
            warm_up: (time / 4).min(Duration::from_secs(1)),
            time,
            settings: &arguments.settings,
        })
    }

    fn conduct(&self) -> Result<(Header, Vec<Row>), Failure> {
        let mut header = Header::new(self.directory, self.rounds, self.time);
        let mut rows = Vec::new();
        for case in CASES {
            let engines = self.engines.iter().copied().filter(|kind| case.in_flight == 1 || kind.is_pipelined());
            let mut of_case: Vec<(Kind, Vec<Round>)> = engines.map(|kind| (kind, Vec::new())).collect();
            for round in 1..=self.rounds {
                let disk_us = disk::flush_time(self.directory)?;
                for (kind, rounds) in &mut of_case {
                    let measured = self.measure(*kind, case)?;
                    eprintln!(
                        "round {round} of {}: {case}, {kind}: {:.0} entries/s, disk alone {disk_us:.0} us",
                        self.rounds, measured.entries_per_s
                    );
                    header.learn(*kind, &measured.about);
                    rounds.push(Round { disk_us, measured });
                }
            }
            rows.extend(of_case.into_iter().map(|(kind, rounds)| Row::median(kind, case, rounds)));
        }
        Ok((header, rows))
    }

    /// One run, and the count of what it left.
    fn measure(&self, kind: Kind, case: Case) -> Result<Measured, Failure> {
        let directory = self.directory.join(kind.name());
        fs::create_dir(&directory).map_err(|error| cannot_make(&directory, &error))?;
        let mut command = self.command("run", kind, &directory, case);
        command.args(["--bytes", &case.bytes.to_string()]);
        command.args(["--in-flight", &case.in_flight.to_string()]);
        command.args(["--warm-up-milliseconds", &self.warm_up.as_millis().to_string()]);
        command.args(["--milliseconds", &self.time.as_millis().to_string()]);
        let measured: Measured = answer(command, kind, self.warm_up + self.time + PATIENCE)?;
        let counted: Counted = answer(self.command("count", kind, &directory, case), kind, PATIENCE)?;
        if counted.appended != measured.acknowledged {
            let message = format!(
                "{kind}: {case}: {} entries were acknowledged, {} were found",
                measured.acknowledged, counted.appended
            );
            return Err(Failure::new(Exit::Corrupt, message, "keep its directory with --keep, and look at it"));
        }
        fs::remove_dir_all(&directory).map_err(|error| {
            let message = format!("{}: cannot be removed: {error}", directory.display());
            Failure::new(Exit::Other, message, "remove it by hand")
        })?;
        Ok(measured)
    }

    fn command(&self, name: &str, kind: Kind, directory: &Path, case: Case) -> Command {
        let mut command = Command::new(&self.program);
        command.args([name, "--engine", kind.name(), "--threads", &case.threads.to_string(), "--directory"]);
        command.arg(directory).args(["--io", &self.settings.io.to_string()]);
        if let Some(depth) = self.settings.depth {
            command.args(["--depth", &depth.to_string()]);
        }
        command.envs(kind.environment(directory));
        command
    }
}

/// Runs a process and reads its line. What it says to standard error is for the person.
fn answer<A: DeserializeOwned>(mut command: Command, kind: Kind, patience: Duration) -> Result<A, Failure> {
    let other = |what: String| Failure::new(Exit::Other, format!("{kind}: {what}"), "run it again with --only");
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| other(format!("no process can be started: {error}")))?;
    if !has_ended(&mut child, patience) {
        // It may be in the kernel for ever; then only its name is left.
        drop(child.kill());
        return Err(other(format!("not done after {} s", patience.as_secs())));
    }
    let output = child.wait_with_output().map_err(|error| other(format!("its output is lost: {error}")))?;
    if !output.status.success() {
        let code = output.status.code();
        let exit = Exit::ALL.iter().copied().find(|exit| Some(i32::from(*exit as u8)) == code);
        let message = format!("{kind}: its process ended with {}", output.status);
        let next_step = "see what it said above";
        return Err(Failure::new(exit.filter(|exit| *exit != Exit::Done).unwrap_or(Exit::Other), message, next_step));
    }
    serde_json::from_slice(&output.stdout).map_err(|error| other(format!("no answer: {error}")))
}

/// A line is less than a pipe holds, so that the process never waits for its reader.
fn has_ended(child: &mut Child, patience: Duration) -> bool {
    let start = Instant::now();
    while start.elapsed() < patience {
        if child.try_wait().is_ok_and(|status| status.is_some()) {
            return true;
        }
        thread::sleep(POLL);
    }
    false
}

/// The directory of a whole run, gone when it is dropped.
struct Place {
    path: PathBuf,
}

impl Place {
    /// Below a directory that exists, or where this workspace keeps what it builds.
    fn make(below: Option<&Path>) -> Result<Place, Failure> {
        let name = format!("peers-{}", std::process::id());
        let (path, made) = match below {
            Some(below) => (below.join(name), Ok(())),
            None => {
                let below = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
                (below.join(name), fs::create_dir_all(below))
            }
        };
        made.and_then(|()| fs::create_dir(&path)).map_err(|error| cannot_make(&path, &error))?;
        Ok(Place { path })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("warning: {} stays behind: {error}", self.path.display());
        }
    }
}

fn cannot_make(path: &Path, error: &std::io::Error) -> Failure {
    let message = format!("{}: no directory can be made: {error}", path.display());
    Failure::new(Exit::Usage, message, "name a directory that this user may write to: --dir DIR")
}

impl std::fmt::Display for Case {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} x {} B", self.threads, self.bytes)?;
        if self.in_flight > 1 { write!(formatter, ", {} in flight each", self.in_flight) } else { Ok(()) }
    }
}
