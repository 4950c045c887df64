//! Load from other processes, and their journals.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{PATIENCE, PROGRAM};

const WRITERS: usize = 3;
/// Records of one writer that may be given and not acknowledged.
const WINDOW: u64 = 3000;
/// Records given at once.
const CHUNK: u64 = 50;
const POLL: Duration = Duration::from_millis(1);
/// Between two chunks of a slow writer.
const PAUSE: Duration = Duration::from_millis(10);

/// Several `trilith log append -`, each with known input.
pub struct Load {
    writers: Vec<Writer>,
}

struct Writer {
    process: Child,
    /// What it says, beside indexes.
    complaints: PathBuf,
    journal: PathBuf,
    counts: Arc<Counts>,
    /// Gives how many records were handed over, the last ones perhaps not whole.
    feeder: Option<JoinHandle<u64>>,
}

#[derive(Default)]
struct Counts {
    given: AtomicU64,
    acknowledged: AtomicU64,
    /// Between two chunks, in milliseconds.
    pause: AtomicU64,
    is_over: AtomicBool,
}

/// What one writer was given and told.
#[derive(Debug)]
pub struct Journal {
    pub writer: usize,
    pub given: u64,
    /// The index of each record that was acknowledged, in the order of the input.
    pub indexes: Vec<u64>,
}

/// The record that a writer gives as its nth.
pub fn record(writer: usize, number: u64) -> String {
    let filler = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize;
    format!("{writer}:{number}:{}", "abcdefghijklmnop".repeat(16).split_at(filler).0)
}

impl Load {
    pub fn start(client_file: &Path, journals: &Path) -> Load {
        let start = |number| Writer::start(number, client_file, journals);
        Load { writers: (0..WRITERS).map(start).collect() }
    }

    pub fn given(&self) -> u64 {
        self.writers.iter().map(|writer| writer.counts.given.load(Ordering::SeqCst)).sum()
    }

    pub fn acknowledged(&self) -> u64 {
        self.writers.iter().map(|writer| writer.counts.acknowledged.load(Ordering::SeqCst)).sum()
    }

    /// Goes on, but slowly: while a node starts, so that what it has to read does not grow without end.
    pub fn slow(&self, is_slow: bool) {
        self.pause(if is_slow { PAUSE } else { Duration::ZERO });
    }

    /// So long between two chunks of each writer.
    pub fn pause(&self, pause: Duration) {
        let milliseconds = pause.as_millis() as u64;
        self.writers.iter().for_each(|writer| writer.counts.pause.store(milliseconds, Ordering::SeqCst));
    }

    /// Waits until this many are acknowledged in all.
    pub fn reach(&mut self, acknowledged: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.acknowledged() < acknowledged {
            for writer in &mut self.writers {
                let ended = writer.process.try_wait().expect("it is a child");
                assert!(ended.is_none(), "a writer ended ({ended:?}): {}", writer.complaints());
            }
            let found = self.acknowledged();
            assert!(Instant::now() < deadline, "{found} acknowledged within {PATIENCE:?}, not {acknowledged}");
            std::thread::sleep(POLL);
        }
    }

    /// Ends the writers as they stand (SIGKILL): what they were not told of stays unknown.
    pub fn kill(mut self) -> Vec<Journal> {
        self.writers.iter_mut().for_each(Writer::kill);
        self.take()
    }

    fn take(&mut self) -> Vec<Journal> {
        self.writers.iter_mut().enumerate().map(|(number, writer)| writer.take(number)).collect()
    }
}

impl Writer {
    fn start(number: usize, client_file: &Path, journals: &Path) -> Writer {
        let path = |what: &str| journals.join(format!("{what}-{number}"));
        let (journal, complaints) = (path("journal"), path("complaints"));
        let file = |path: &Path| File::create(path).expect("a file can be made");
        let mut process = Command::new(PROGRAM)
            .args(["log", "append", "-", "--timeout", "60", "--client"])
            .arg(client_file)
            .stdin(Stdio::piped())
            .stdout(file(&journal))
            .stderr(file(&complaints))
            .spawn()
            .expect("the binary runs");
        let input = process.stdin.take().expect("it is piped");
        let counts = Arc::new(Counts::default());
        let (shared, told) = (counts.clone(), journal.clone());
        let feeder = std::thread::spawn(move || feed(number, input, &told, &shared));
        Writer { process, complaints, journal, counts, feeder: Some(feeder) }
    }

    fn kill(&mut self) {
        self.counts.is_over.store(true, Ordering::SeqCst);
        if self.process.try_wait().is_ok_and(|ended| ended.is_none()) {
            // It may end by itself in between; it is waited for all the same.
            self.process.kill().ok();
            self.process.wait().ok();
        }
    }

    fn take(&mut self, number: usize) -> Journal {
        let given = self.feeder.take().expect("taken once").join().expect("the feeder does not panic");
        let text = std::fs::read_to_string(&self.journal).expect("the journal is there");
        // A last line without its end was never told.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let indexes = whole.lines().map(|line| line.parse().expect("a line is an index")).collect();
        Journal { writer: number, given, indexes }
    }

    fn complaints(&self) -> String {
        std::fs::read_to_string(&self.complaints).unwrap_or_default()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.kill();
        if let Some(feeder) = self.feeder.take() {
            feeder.join().ok();
        }
    }
}

/// Gives records as long as the window has room, until told to end or until nobody takes them.
fn feed(writer: usize, mut input: ChildStdin, journal: &Path, counts: &Counts) -> u64 {
    let mut journal = File::open(journal).expect("it was just made");
    let mut told = vec![0; 64 << 10];
    let (mut given, mut acknowledged) = (0, 0);
    while !counts.is_over.load(Ordering::SeqCst) {
        let read = journal.read(&mut told).expect("the journal can be read");
        acknowledged += told[..read].iter().filter(|byte| **byte == b'\n').count() as u64;
        counts.acknowledged.store(acknowledged, Ordering::SeqCst);
        if given - acknowledged + CHUNK > WINDOW {
            std::thread::sleep(POLL);
            continue;
        }
        let chunk: String = (given..given + CHUNK).map(|number| record(writer, number) + "\n").collect();
        given += CHUNK;
        if input.write_all(chunk.as_bytes()).is_err() {
            break;
        }
        counts.given.store(given, Ordering::SeqCst);
        match counts.pause.load(Ordering::SeqCst) {
            0 => {}
            milliseconds => std::thread::sleep(Duration::from_millis(milliseconds)),
        }
    }
    given
}
