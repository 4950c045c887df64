//! `trilith wal repair`: says what it would do, and does it if it is told to.

use std::fmt::Write;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::reading::{ATTEMPTS, Kind, PAUSE, Reading, inspect_superblock, source};
use super::verify::{self, Shown};
use crate::cli::exit::{Exit, Failure};
use crate::cli::failures;
use crate::cli::output::{self, Format};
use crate::disk::{Directory, Files};
use crate::random::entropy;
use crate::superblock::{self, NO_VOICE_NAME};
use crate::wal::handle::{LOCK_NAME, LOG_DIRECTORY};
use crate::wal::repair::{self, Obstacle, Orders, Plan, Step};
use crate::wal::{Error, Loss, Lost, shell_quoted};

/// What `--lost` says of entries that nothing readable names.
const UNNAMED: &str = "unnamed";
/// What `--lost` says where the cut loses no entry.
const NOTHING: &str = "nothing";

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The directory of a node, or of a log by itself
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Do what would be done; without it nothing is changed
    #[arg(long)]
    pub apply: bool,
    /// Cut the log off at its first damage, though what is lost may have been acknowledged to somebody
    #[arg(long)]
    pub unsafe_cut_acknowledged: bool,
    /// What you agree to lose, as this command prints it: entries of a group, `unnamed`, or `nothing`
    #[arg(long, value_name = "GROUP:FROM..TO", requires = "unsafe_cut_acknowledged")]
    pub lost: Vec<String>,
    /// Let a node vote though it forgets what it had acknowledged: only for the one voter of its cluster
    #[arg(long, requires = "unsafe_cut_acknowledged")]
    pub unsafe_keep_voice: bool,
    /// How to print the answer
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
}

/// The answer, as it goes into the JSON document.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    directory: String,
    /// Whether the steps were taken, or would be.
    applied: bool,
    steps: Vec<String>,
    /// What is still to be done behind the steps that were taken.
    #[serde(skip)]
    left: Vec<String>,
    /// What is damaged still, for people.
    damage: Option<String>,
    /// The same as `wal verify` says it.
    finding: Option<Shown>,
    /// What a cut there loses, as `--lost` takes it; empty if there is nothing to cut, or nothing would be left.
    lost: Vec<String>,
    /// The same for people.
    loses: Vec<String>,
    /// Where what was cut is kept.
    kept_in: Option<String>,
    next_step: String,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (text, outcome) = perform(arguments)?;
    output::print(&text)?;
    outcome
}

/// What is printed, and how the command ends.
pub fn perform(arguments: &Arguments) -> Result<(String, Result<(), Failure>), Failure> {
    let reading = Reading::take(&arguments.directory)?;
    let files = Directory::open(&arguments.directory).map_err(|error| failures::of_disk(&error, error.to_string()))?;
    if arguments.apply {
        take_locks(&files, &arguments.directory)?;
    }
    let plan = planned(&reading, &files, arguments.apply)?;
    let answer = match arguments.apply {
        false => Answer::of(&reading, arguments, (steps(&reading, &plan), &plan)),
        true if reading.log_lost().is_some() => Answer::of(&reading, arguments, (Vec::new(), &plan)),
        true => {
            let orders = orders(&reading, arguments, &plan)?;
            let (done, left) = apply(&reading, &files, &orders)?;
            let mut answer = Answer::of(&reading, arguments, (done, &left));
            if let (Some(loss), None, true) = (&orders.loss, &left.damage, left.steps.is_empty()) {
                answer.kept_in = Some(loss.directory());
                answer.next_step = after_cut(&reading, arguments);
            }
            answer
        }
    };
    let text = output::shown(&answer, Answer::table, arguments.output);
    Ok((text, answer.judge()))
}

/// Whoever else has the log is told by these, and what is in use is refused: held until the directory is dropped.
fn take_locks(files: &Directory, directory: &std::path::Path) -> Result<(), Failure> {
    let names = files.list("").map_err(|error| failures::of_disk(&error, error.to_string()))?;
    for name in [LOCK_NAME, superblock::FILE_NAME].into_iter().filter(|name| names.iter().any(|own| own == name)) {
        let opened =
            files.open(name).map_err(|error| failures::of_disk(&error, format!("{}: {error}", directory.display())))?;
        if name == superblock::FILE_NAME {
            files.close(opened);
        }
    }
    Ok(())
}

/// What can be done. Of a log in use that is what two looks in a row say.
fn planned(reading: &Reading, files: &Directory, exclusive: bool) -> Result<Plan, Failure> {
    if let Some(lost) = reading.log_lost() {
        let (damage, obstacle) = (Some((lost.clone(), None)), Some(Obstacle::NothingLeft));
        return Ok(Plan { steps: Vec::new(), damage, obstacle });
    }
    let mut plan = plan_once(reading, files, exclusive)?;
    for _ in 1..ATTEMPTS {
        if exclusive || plan == Plan::default() {
            return Ok(plan);
        }
        // A frame or a header that is being written looks damaged, and so does a file that is taken into other use.
        thread::sleep(PAUSE);
        let first = std::mem::replace(&mut plan, plan_once(reading, files, exclusive)?);
        plan.steps.retain(|step| first.steps.contains(step));
        let place = |plan: &Plan| plan.damage.as_ref().map(|(own, _)| (own.file.clone(), own.bytes.start));
        if place(&plan) == place(&first) {
            return Ok(plan);
        }
    }
    // No two looks in a row found the same damage: what stays is found in each.
    Ok(Plan { damage: None, obstacle: None, ..plan })
}

fn plan_once(reading: &Reading, files: &Directory, exclusive: bool) -> Result<Plan, Failure> {
    // Of a log in use what it said of an end that has gone by since would be held against it.
    let now = if exclusive { None } else { inspect_superblock(files).ok() };
    let source = source(now.as_ref().or(reading.superblock.as_ref()), exclusive);
    let mut said = repair::plan(files, &source);
    // Of a log in use segments are renamed between two looks.
    for _ in 1..ATTEMPTS {
        let is_renamed = matches!(&said, Err(Error::Disk(error)) if error.kind() == io::ErrorKind::NotFound);
        if exclusive || !is_renamed {
            break;
        }
        said = repair::plan(files, &source);
    }
    said.map_err(|error| failures::of_log(&error, reading.directory.as_ref(), error.to_string()))
}

fn has_damaged_blocks(reading: &Reading) -> bool {
    reading.superblock.as_ref().is_some_and(|found| !found.found.are_intact())
}

fn steps(reading: &Reading, plan: &Plan) -> Vec<String> {
    let superblock = has_damaged_blocks(reading).then(mend_step);
    superblock.into_iter().chain(plan.steps.iter().map(described)).collect()
}

fn mend_step() -> String {
    "write the superblock's damaged blocks again from its intact ones".to_owned()
}

fn described(step: &Step) -> String {
    match step {
        Step::RestoreHeader { file, offset } => format!("write the header of {file} at {offset} again, from its twin"),
        Step::SetAside { file } => {
            format!("move {file} to {}: it is damaged, and no part of the log", repair::SET_ASIDE_DIRECTORY)
        }
        Step::CutTorn { file, bytes } => {
            let home = step.keeps_in().expect("a torn end is kept");
            let kept = format!("up to 1 MiB of it is kept in {home}, if there is room");
            format!("cut {file} off at {}, what was never acknowledged; {kept}", bytes.start)
        }
        Step::CutAcknowledged(loss) => {
            format!("cut the log off behind {}; all of it is kept in {}", loss.end, loss.directory())
        }
    }
}

/// The step as it was taken: what was to be kept is there, or is not.
fn taken(files: &Directory, step: &Step) -> String {
    let text = described(step);
    let Some(home) = step.keeps_in() else { return text };
    let is_there = files.list(LOG_DIRECTORY).is_ok_and(|names| names.iter().any(|name| home.ends_with(name.as_str())));
    match is_there {
        true => text.replace(", if there is room", ""),
        false => {
            let (cut, _) = text.split_once(';').expect("it says where it is kept");
            format!("{cut}; nothing of it is kept: the disk is full, or as many such files are there as may be")
        }
    }
}

/// The superblock first, then the log; what was done, and what there is then.
fn apply(reading: &Reading, files: &Directory, orders: &Orders) -> Result<(Vec<String>, Plan), Failure> {
    let path = reading.directory.as_ref();
    let mut done = Vec::new();
    if reading.superblock.is_some() {
        let mended = superblock::mend(files);
        if mended.map_err(|error| failures::of_superblock(&error, path, error.to_string()))? {
            done.push(mend_step());
        }
    }
    let source = source(reading.superblock.as_ref(), true);
    let steps = repair::apply(files, &source, orders);
    let steps = steps.map_err(|error| failures::of_log(&error, path, error.to_string()))?;
    done.extend(steps.iter().map(|step| taken(files, step)));
    Ok((done, planned(reading, files, true)?))
}

/// What may be done: to lose anything takes the flag and the very loss.
fn orders(reading: &Reading, arguments: &Arguments, plan: &Plan) -> Result<Orders, Failure> {
    let loss = plan.damage.as_ref().and_then(|(_, loss)| loss.as_ref());
    let mark = match reading.kind {
        Some(Kind::Node(node)) if !arguments.unsafe_keep_voice => Some((
            NO_VOICE_NAME.to_owned(),
            format!("node {node} has lost what it had acknowledged (`trilith wal repair`): it must not vote\n"),
        )),
        _ => None,
    };
    let wall_clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let mut orders =
        Orders { loss: None, mark, seed: entropy(), wall_clock_milliseconds: u64::try_from(wall_clock).unwrap_or(0) };
    if let (true, Some(loss)) = (arguments.unsafe_cut_acknowledged, loss) {
        if reading.superblock.is_none() {
            let next = "nothing was cut: without a superblock nobody can say what had been durable";
            return Err(Failure::new(Exit::Corrupt, "the superblock is damaged", next));
        }
        agree(loss, &arguments.lost)?;
        orders.loss = Some(loss.clone());
    }
    Ok(orders)
}

fn agree(loss: &Loss, given: &[String]) -> Result<(), Failure> {
    let wanted = agreement(loss);
    let mut given = given.to_vec();
    if given.is_empty() && io::stdin().is_terminal() {
        eprintln!("This loses what may have been acknowledged: {}", losses(loss).join("; "));
        eprint!("To agree, type {}: ", wanted.join(" "));
        let mut line = String::new();
        // An answer that cannot be read is none.
        io::stdin().read_line(&mut line).unwrap_or_default();
        given = line.split_whitespace().map(str::to_owned).collect();
    }
    let whole = |text: &String| match text.contains("..") && !text.contains(':') {
        true => format!("0:{text}"),
        false => text.clone(),
    };
    let mut given: Vec<String> = given.iter().map(whole).collect();
    let mut sorted = wanted.clone();
    given.sort();
    sorted.sort();
    if given == sorted {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Usage,
        "what is lost was not agreed to, and nothing was changed",
        format!("if you agree, add {}", flags(&wanted)),
    ))
}

fn agreement(loss: &Loss) -> Vec<String> {
    let range = |lost: &Lost| format!("{}:{}..{}", lost.group, lost.first.index, lost.end());
    let mut words: Vec<String> = loss.entries.iter().map(range).collect();
    words.extend(loss.has_unnamed.then(|| UNNAMED.to_owned()));
    if words.is_empty() {
        // Frames go that had been acknowledged: to agree takes a word in any case.
        words.push(NOTHING.to_owned());
    }
    words
}

/// The same for people.
fn losses(loss: &Loss) -> Vec<String> {
    let lines: Vec<String> = loss.lines().collect();
    if lines.is_empty() { vec!["no entry".to_owned()] } else { lines }
}

fn flags(lost: &[String]) -> String {
    lost.iter().map(|lost| format!("--lost {lost}")).collect::<Vec<_>>().join(" ")
}

fn after_cut(reading: &Reading, arguments: &Arguments) -> String {
    match reading.kind {
        Some(Kind::Node(node)) if !arguments.unsafe_keep_voice => format!(
            "node {node} has no voice any more, and does not start: `{NO_VOICE_NAME}` in its directory says so. It can come \
             back only as a learner, under a new incarnation: `trilith cluster remove` takes this one out, `trilith init \
             --join` makes an empty directory. Keep this one; the others serve while they are a majority"
        ),
        Some(Kind::Node(node)) => format!(
            "node {node} starts, and votes as if it had never acknowledged what it lost: that is right only if no other \
             voter is left that heard of it"
        ),
        Some(Kind::Alone) | None => {
            "the log opens again; tell whoever relied on the entries that were cut, and keep the copy".to_owned()
        }
    }
}

impl Answer {
    pub fn of(reading: &Reading, arguments: &Arguments, (steps, plan): (Vec<String>, &Plan)) -> Answer {
        let loss = plan.damage.as_ref().and_then(|(_, loss)| loss.as_ref());
        let of_superblock =
            reading.findings.iter().find(|own| reading.superblock.is_none() && own.file == superblock::FILE_NAME);
        let damage = of_superblock.or(plan.damage.as_ref().map(|(finding, _)| finding));
        let directory = reading.directory.clone();
        let left: Vec<String> = plan.steps.iter().filter(|_| arguments.apply).map(described).collect();
        let lost = loss.map(agreement).unwrap_or_default();
        let command = format!("trilith wal repair {} --apply", shell_quoted(&directory));
        let lost_file = damage.filter(|own| own.bytes.is_empty() && own.segment().is_none());
        let next_step = match (&plan.damage, reading.superblock.is_some()) {
            _ if lost_file.is_some() => lost_file.map(|own| verify::next_step(reading, own)).unwrap_or_default(),
            (_, false) => "keep a copy of the directory: its superblock cannot be repaired".to_owned(),
            (None, _) if !left.is_empty() => command,
            (None, _) if steps.is_empty() => "nothing: there is nothing to repair".to_owned(),
            (None, _) if arguments.apply => "nothing: the log is sound".to_owned(),
            (None, _) => command,
            (Some((_, None)), _) => match plan.obstacle {
                Some(Obstacle::PurgedAgain) => {
                    "keep a copy of the directory: a cut would go back to entries that were purged, or copied \
                     forward behind the damage, and whose segments are used again"
                        .to_owned()
                }
                _ => "keep a copy of the directory: a cut would leave nothing of the log".to_owned(),
            },
            (Some((_, Some(_))), _) => format!(
                "keep a copy of the directory. Only if these entries are nowhere else, or not needed: {command} \
                 --unsafe-cut-acknowledged {}",
                flags(&lost)
            ),
        };
        Answer {
            directory,
            applied: arguments.apply,
            steps,
            left,
            damage: damage.map(ToString::to_string),
            finding: damage.map(|finding| Shown::of(reading, finding).with_next_step(&next_step)),
            loses: loss.map(losses).unwrap_or_default(),
            lost,
            kept_in: None,
            next_step,
        }
    }

    pub fn judge(&self) -> Result<(), Failure> {
        match &self.finding {
            None if self.left.is_empty() => Ok(()),
            None => {
                let steps = output::counted(self.left.len() as u64, "step");
                let message = format!("{}: not repaired: {steps} left to take", self.directory);
                Err(Failure::new(Exit::Corrupt, message, self.next_step.clone()))
            }
            Some(finding) => {
                let message = format!("{}: not repaired: {}", self.directory, finding.place());
                Err(Failure::new(Exit::Corrupt, message, self.next_step.clone()))
            }
        }
    }

    pub fn table(&self) -> String {
        let mut out = format!("{}\n", self.directory);
        let mut line = |text: String| writeln!(out, "{text}").expect("a string takes what it is given");
        let verb = if self.applied { "done" } else { "would do" };
        self.steps.iter().for_each(|step| line(format!("{verb}: {step}")));
        self.left.iter().for_each(|step| line(format!("left: {step}")));
        if let Some(damage) = &self.damage {
            line(format!("not repaired: {damage}"));
        }
        self.loses.iter().for_each(|lost| line(format!("  a cut there loses {lost}")));
        if let Some(home) = &self.kept_in {
            line(format!("what was cut is kept in {}/{home}", self.directory));
        }
        line(format!("next: {}", self.next_step));
        out
    }
}
