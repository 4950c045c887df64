//! The process that has the log open: this test's own program once more, which runs the one test below.
//!
//! It speaks over a socket that is its standard input, in lines: that it opens the log; what the log held; then each call
//! before it is made (`given`) and once [`trilith::wal::handle::Pending::wait`] has returned (`durable`).

use std::collections::VecDeque;
use std::io::{Write, stdin};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use trilith::types::{GroupId, Index, LogId, Payload, Term};
use trilith::wal::Wal;
use trilith::wal::handle::{OutcomeUnknown, Pending, Refused};

use super::load::{Found, GROUPS, Name, Step, record, step};

/// What the process is to do: see [`Task`]. Without it, the test below is none.
const TASK: &str = "TRILITH_TEST_LOG_TASK";
/// Calls of one thread that are on their way.
const IN_FLIGHT_MAX: usize = 8;
/// Several segments in each life.
const SEGMENT_BYTES: u64 = 1 << 20;
const READ_BYTES_MAX: usize = 4 << 20;
/// The exit code for a disk that failed.
pub const DISK_FAILED: i32 = 18;

/// Printed and parsed as words in this order.
#[derive(Clone, Debug)]
pub struct Task {
    pub directory: PathBuf,
    pub io: &'static str,
    /// How it flushes: `auto`, `dsync` or `fdatasync`.
    pub sync: &'static str,
    pub seed: u64,
    /// Whether to append, or only to show what is there.
    pub is_busy: bool,
    /// The number of each group's last call.
    pub given: [u64; GROUPS],
}

impl Task {
    /// Starts the process, with its end of the conversation.
    pub fn start(&self) -> (Child, UnixStream) {
        let (ours, its) = UnixStream::pair().expect("a pair of sockets can be made");
        let Task { directory, io, sync, seed, is_busy, given } = self;
        let given = given.map(|number| number.to_string()).join(" ");
        let task = format!("{io} {sync} {seed} {is_busy} {given} {}", directory.display());
        let program = std::env::current_exe().expect("a test knows its own program");
        let child = Command::new(program)
            .args(["--exact", "log_cuts::process::has_the_log_open", "--ignored", "--nocapture"])
            .env(TASK, task)
            .stdin(std::os::fd::OwnedFd::from(its))
            .stdout(Stdio::null())
            .spawn()
            .expect("this program runs");
        (child, ours)
    }
}

/// The log, and whom to tell.
struct Process {
    wal: Wal,
    seed: u64,
    teller: Mutex<UnixStream>,
}

#[test]
#[ignore = "the process that other tests start, and kill"]
fn has_the_log_open() {
    let Ok(task) = std::env::var(TASK) else { return };
    let words: Vec<&str> = task.splitn(5 + GROUPS, ' ').collect();
    let number = |at: usize| words[at].parse::<u64>().expect("a number");
    let its = stdin().as_fd().try_clone_to_owned().expect("its standard input is a socket");
    let mut teller = UnixStream::from(its);
    let mut options = trilith::wal::handle::Options::new(Path::new(words[4 + GROUPS]));
    options.io = words[0].parse().expect("a back end");
    options.sync_mode = (words[1] != "auto").then(|| words[1].parse().expect("a way to flush"));
    options.segment_bytes = SEGMENT_BYTES;
    tell(&mut teller, "opening");
    // The thread of a test has little to say to a process that is killed anyway.
    let (wal, found) = match Wal::open(options) {
        Ok(opened) => opened,
        Err(error) => {
            tell(&mut teller, &format!("refused {error:?}"));
            std::process::exit(1);
        }
    };
    tell(&mut teller, &format!("opened {}, {}", found.io, found.sync_mode));
    let process = Process { wal, seed: number(2), teller: Mutex::new(teller) };
    for group in 0..GROUPS {
        process.show(group);
    }
    process.say("whole");
    match words[3] == "true" {
        true => process.work(std::array::from_fn(|group| number(4 + group))),
        false => loop {
            std::thread::sleep(Duration::from_secs(1));
        },
    }
}

impl Process {
    fn say(&self, line: &str) {
        tell(&mut self.teller.lock().expect("nobody panics with it"), line);
    }

    /// All that the log holds of a group.
    fn show(&self, group: usize) {
        let Some(log) = self.wal.group(GroupId(group as u32)) else { return };
        self.say(&format!("group {group} {}", log.before_first.index.0));
        let (mut next, end) = (log.first(), log.last.index.next());
        while next < end {
            match self.wal.read(GroupId(group as u32), next..end, READ_BYTES_MAX) {
                Ok(entries) if !entries.is_empty() => {
                    for entry in entries {
                        assert_eq!(entry.id.index, next, "entries come in order");
                        let Payload::Data(data) = entry.payload else { panic!("{}: no record of ours", entry.id) };
                        let Found { bytes, checksum } = Found::of(&data.bytes);
                        self.say(&format!("entry {group} {bytes} {checksum}"));
                        next = next.next();
                    }
                }
                other => {
                    self.say(&format!("refused group {group} index {next}: {other:?}"));
                    std::process::exit(1);
                }
            }
        }
    }

    /// Until the disk fails.
    fn work(&self, given: [u64; GROUPS]) {
        let failure = std::thread::scope(|scope| {
            let threads: Vec<_> = given
                .iter()
                .enumerate()
                .map(|(group, given)| scope.spawn(move || self.append(group, *given)))
                .collect();
            let failures = threads.into_iter().map(|thread| thread.join().expect("it does not panic"));
            failures.last().expect("there are groups")
        });
        self.say(&format!("failed {failure}"));
        // A log that has failed takes nothing, and says so of everything.
        for group in 0..GROUPS {
            let again = self.wal.append_records(GroupId(group as u32), ["afterwards"]);
            if again.is_ok_and(|pending| pending.wait().is_ok()) {
                self.say("refused to fail: it acknowledges after an error");
            }
        }
        std::process::exit(DISK_FAILED);
    }

    /// One group's calls, until one fails: that failure.
    fn append(&self, group: usize, mut number: u64) -> String {
        let names = self.wal.group(GroupId(group as u32));
        let (mut before_first, mut last) =
            names.map_or((0, 0), |names| (names.before_first.index.0, names.last.index.0));
        let mut in_flight: VecDeque<(u64, Pending)> = VecDeque::new();
        loop {
            if in_flight.len() == IN_FLIGHT_MAX {
                let (number, pending) = in_flight.pop_front().expect("it is full");
                match pending.wait() {
                    Ok(_) => self.say(&format!("durable {group} {number}")),
                    Err(OutcomeUnknown(error)) => return error.to_string(),
                }
            }
            number += 1;
            let step = step(self.seed, group, number, before_first, last);
            self.say(&format!("given {group} {number}"));
            match self.call(group, number, &step) {
                Ok(pending) => in_flight.push_back((number, pending)),
                Err(refused) => return refused.to_string(),
            }
            match step {
                Step::Append(count) => last += u64::from(count),
                Step::Truncate(from) => last = from - 1,
                Step::Purge(until) => before_first = until,
            }
        }
    }

    fn call(&self, group: usize, number: u64, step: &Step) -> Result<Pending, Refused> {
        let id = GroupId(group as u32);
        match step {
            Step::Append(count) => {
                let names = (0..*count).map(|at| Name { step: number, at });
                self.wal.append_records(id, names.map(|name| record(self.seed, group, name)))
            }
            Step::Truncate(from) => self.wal.truncate_suffix(id, Index(*from)),
            Step::Purge(last) => self.wal.purge_prefix(id, LogId::new(Term(1), Index(*last))),
        }
    }
}

fn tell(teller: &mut UnixStream, line: &str) {
    // Who listens has gone: then nothing matters any more.
    if teller.write_all(format!("{line}\n").as_bytes()).is_err() {
        std::process::exit(1);
    }
}
