//! One process from its start to its end, and what it has told.

use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::process::Child;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::load::{Found, GROUPS};
use super::process::Task;

const POLL: Duration = Duration::from_millis(1);
/// How long a process may take for what the test waits for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Killed when it is dropped.
pub struct Life {
    process: Child,
    told: Arc<Mutex<Told>>,
    listener: Option<JoinHandle<()>>,
}

#[derive(Clone, Default, Debug)]
pub struct Told {
    /// The log is being opened, or is open.
    pub is_opening: bool,
    /// How the log does its I/O, once it is open.
    pub opened: Option<String>,
    /// Of each group that is there: the index before the first, and all entries.
    pub held: [Option<(u64, Vec<Found>)>; GROUPS],
    /// All that the log holds has been told.
    pub is_whole: bool,
    /// The number of the last call that was made, and of the last that was acknowledged.
    pub given: [u64; GROUPS],
    pub durable: [u64; GROUPS],
    /// Acknowledged calls, of all groups.
    pub acknowledged: u64,
    pub failed: Option<String>,
    /// What must not be: the log does not open, or an entry cannot be read.
    pub refused: Option<String>,
}

impl Life {
    pub fn start(task: &Task) -> Life {
        let (process, socket) = task.start();
        let told = Told { given: task.given, durable: task.given, ..Told::default() };
        let told = Arc::new(Mutex::new(told));
        let shared = told.clone();
        let listener = std::thread::spawn(move || listen(socket, &shared));
        Life { process, told, listener: Some(listener) }
    }

    /// Waits until this is so, or the process has ended.
    pub fn wait(&mut self, what: &str, is_so: impl Fn(&Told) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(&lock(&self.told)) && self.process.try_wait().expect("it is a child").is_none() {
            assert!(Instant::now() < deadline, "no {what} within {PATIENCE:?}: {:?}", lock(&self.told).failed);
            std::thread::sleep(POLL);
        }
    }

    /// What it has said by now that it must not say while the power is on.
    pub fn strange(&self) -> Option<String> {
        let told = lock(&self.told);
        told.refused.clone().or(told.failed.clone())
    }

    /// The exit code of a process that ends by itself.
    pub fn end(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.process.try_wait().expect("it is a child") {
                return status.code();
            }
            std::thread::sleep(POLL);
        }
        None
    }

    /// Ends it as it stands (SIGKILL), and gives all that it has told.
    pub fn kill(mut self) -> Told {
        self.stop();
        lock(&self.told).clone()
    }

    fn stop(&mut self) {
        // It may end by itself in between; it is waited for all the same.
        self.process.kill().ok();
        self.process.wait().ok();
        if let Some(listener) = self.listener.take() {
            listener.join().ok();
        }
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.stop();
    }
}

fn listen(socket: UnixStream, told: &Mutex<Told>) {
    let mut reader = BufReader::new(socket);
    let mut line = String::new();
    // A last line without its end was never told.
    while reader.read_line(&mut line).is_ok_and(|bytes| bytes > 0) && line.ends_with('\n') {
        lock(told).take(line.trim_end());
        line.clear();
    }
}

fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Told {
    fn take(&mut self, line: &str) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let numbers = || -> Vec<u64> { rest.split(' ').map(|word| word.parse().expect("a number")).collect() };
        match word {
            "opening" => self.is_opening = true,
            "opened" => self.opened = Some(rest.to_owned()),
            "group" => self.held[numbers()[0] as usize] = Some((numbers()[1], Vec::new())),
            "entry" => {
                let [group, bytes, checksum] = numbers()[..] else { panic!("{line}") };
                let (_, entries) = self.held[group as usize].as_mut().expect("the group comes first");
                entries.push(Found { bytes: bytes as usize, checksum: checksum as u32 });
            }
            "whole" => self.is_whole = true,
            "given" => self.given[numbers()[0] as usize] = numbers()[1],
            "durable" => {
                self.durable[numbers()[0] as usize] = numbers()[1];
                self.acknowledged += 1;
            }
            "failed" => self.failed = Some(rest.to_owned()),
            "refused" => self.refused = Some(rest.to_owned()),
            _ => panic!("a process says {line:?}"),
        }
    }
}
