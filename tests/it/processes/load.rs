//! Load from other processes, and their journals.

use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use trilith::types::Index;

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
    feeder: Option<JoinHandle<Fed>>,
}

/// What a feeder has done and seen.
#[derive(Default)]
struct Fed {
    /// When each chunk was handed over; the last one perhaps not whole.
    begins: Vec<Instant>,
    /// How many acknowledgements it had seen, and when. Rising.
    ends: Vec<(u64, Instant)>,
}

#[derive(Default)]
struct Counts {
    given: AtomicU64,
    acknowledged: AtomicU64,
    /// Between two chunks.
    pause_milliseconds: AtomicU64,
    is_over: AtomicBool,
}

/// What one writer was given and told, by the number of the record.
#[derive(Debug)]
pub struct Journal {
    pub writer: usize,
    /// All its records are of one session, and so in the order given.
    pub is_pipeline: bool,
    pub records: Vec<Given>,
}

/// A record that was given.
#[derive(Clone, Copy, Debug)]
pub struct Given {
    /// Not later than it left.
    pub begin: Instant,
    pub told: Told,
}

/// What a writer was told of a record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    /// It stands there; not earlier than this was told.
    At(Index, Instant),
    /// Nothing, or that nobody knows.
    Unknown,
    /// It is not in the log, and never will be.
    Absent,
}

impl Told {
    pub fn index(self) -> Option<Index> {
        if let Told::At(index, _) = self { Some(index) } else { None }
    }
}

/// The record that a writer gives as its nth.
pub fn record(writer: usize, number: u64) -> String {
    let filler = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize;
    format!("{writer}:{number}:{}", "abcdefghijklmnop".repeat(16).split_at(filler).0)
}

impl Load {
    pub fn start(client_file: &Path, journals: &Path) -> Load {
        Load::start_with(client_file, journals, &[])
    }

    /// The same with flags of `trilith log append`.
    pub fn start_with(client_file: &Path, journals: &Path, flags: &[&str]) -> Load {
        let start = |number| Writer::start(number, client_file, journals, flags);
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
        self.pace(if is_slow { PAUSE } else { Duration::ZERO });
    }

    /// Each writer waits so long between two chunks of records.
    pub fn pace(&self, pause: Duration) {
        let milliseconds = pause.as_millis() as u64;
        self.writers.iter().for_each(|writer| writer.counts.pause_milliseconds.store(milliseconds, Ordering::SeqCst));
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
    fn start(number: usize, client_file: &Path, journals: &Path, flags: &[&str]) -> Writer {
        let path = |what: &str| journals.join(format!("{what}-{number}"));
        let (journal, complaints) = (path("journal"), path("complaints"));
        let file = |path: &Path| File::create(path).expect("a file can be made");
        let mut process = Command::new(PROGRAM)
            .args(["log", "append", "-", "--timeout", "60", "--client"])
            .arg(client_file)
            .args(flags)
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
        let fed = self.feeder.take().expect("taken once").join().expect("the feeder does not panic");
        let text = std::fs::read_to_string(&self.journal).expect("the journal is there");
        // A last line without its end was never told.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut indexes = whole.lines().map(|line| Index(line.parse().expect("a line is an index")));
        let (mut ends, now) = (fed.ends.iter().peekable(), Instant::now());
        let mut given = |ordinal: u64| {
            let begin = fed.begins[(ordinal / CHUNK) as usize];
            while ends.next_if(|(seen, _)| *seen <= ordinal).is_some() {}
            let end = ends.peek().map_or(now, |(_, end)| *end);
            Given { begin, told: indexes.next().map_or(Told::Unknown, |index| Told::At(index, end)) }
        };
        let records = (0..fed.begins.len() as u64 * CHUNK).map(&mut given).collect();
        Journal { writer: number, is_pipeline: true, records }
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
fn feed(writer: usize, mut input: ChildStdin, journal: &Path, counts: &Counts) -> Fed {
    let mut journal = File::open(journal).expect("it was just made");
    let mut told = vec![0; 64 << 10];
    let (mut given, mut acknowledged) = (0, 0);
    let mut fed = Fed::default();
    while !counts.is_over.load(Ordering::SeqCst) {
        let read = journal.read(&mut told).expect("the journal can be read");
        acknowledged += told[..read].iter().filter(|byte| **byte == b'\n').count() as u64;
        counts.acknowledged.store(acknowledged, Ordering::SeqCst);
        if read > 0 {
            fed.ends.push((acknowledged, Instant::now()));
        }
        if given - acknowledged + CHUNK > WINDOW {
            std::thread::sleep(POLL);
            continue;
        }
        let chunk: String = (given..given + CHUNK).map(|number| record(writer, number) + "\n").collect();
        given += CHUNK;
        fed.begins.push(Instant::now());
        if input.write_all(chunk.as_bytes()).is_err() {
            break;
        }
        counts.given.store(given, Ordering::SeqCst);
        let pause_milliseconds = counts.pause_milliseconds.load(Ordering::SeqCst);
        if pause_milliseconds > 0 {
            std::thread::sleep(Duration::from_millis(pause_milliseconds));
        }
    }
    fed
}
