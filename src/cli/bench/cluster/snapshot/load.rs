//! The state, and the closed loop of changes to it, which goes on from the first phase to the last.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;

use crate::cli::access;
use crate::cli::exit::Failure;
use crate::client::Client;
use crate::random::Random;

/// A client waits this long for an acknowledgement before the bench gives up.
pub const TIMEOUT: Duration = Duration::from_secs(30);
/// A value that stays as it is.
const STILL_BYTES: usize = 4096;
/// Values that are overwritten: at most so many, spread over the whole map.
const CHANGED_MAX: u64 = 65_536;
const FILL_IN_FLIGHT: usize = 256;

/// What the map holds.
#[derive(Clone, Copy, Debug)]
pub struct State {
    pub bytes: u64,
    /// Keys whose values stay as they are.
    pub still: u64,
    /// Keys whose values are overwritten, one behind each of so many of the others.
    pub changed: u64,
    pub changed_bytes: usize,
}

/// What was done in a stretch of time.
#[derive(Clone, Debug)]
pub struct Phase {
    pub time: Duration,
    pub records: u64,
    /// In nanoseconds.
    pub latency: Histogram<u64>,
}

/// The load, until it is told to end.
pub struct Lanes {
    counted: Rc<RefCell<Counted>>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

struct Counted {
    begun: Instant,
    records: u64,
    latency: Histogram<u64>,
    is_over: bool,
    failure: Option<Failure>,
}

impl State {
    pub fn of(bytes: u64, changed_bytes: usize) -> State {
        let still = (bytes / STILL_BYTES as u64).max(1);
        State { bytes, still, changed: still.min(CHANGED_MAX), changed_bytes }
    }

    /// What the nodes' memory may grow by while one state is kept beside the next: the tree once more, each of the changed
    /// values once more, and what is on its way to the disk.
    pub fn growth_bytes_max(&self) -> u64 {
        // A key and a value are two words each and their own memory; trees are half empty at worst.
        const ENTRY_BYTES: u64 = 160;
        const BUFFERS_BYTES: u64 = 16 << 20;
        let entries = self.still + self.changed;
        entries * ENTRY_BYTES + self.changed * (self.changed_bytes as u64 + ENTRY_BYTES) + BUFFERS_BYTES
    }

    fn key(number: u64) -> String {
        format!("state/{number:010}")
    }

    /// Of one of those that are changed.
    pub fn changed_key(&self, number: u64) -> Bytes {
        let behind = number * (self.still / self.changed);
        Bytes::from(State::key(behind) + "/changed")
    }

    /// Puts everything there.
    pub async fn fill(self, clients: &[Client]) -> Result<(), Failure> {
        let next = Rc::new(RefCell::new(0));
        let fillers = (0..FILL_IN_FLIGHT).map(|filler| {
            let (client, next) = (clients[filler % clients.len()].clone(), next.clone());
            tokio::task::spawn_local(self.fill_some(client, next))
        });
        let mut filled = Ok(());
        for filler in fillers.collect::<Vec<_>>() {
            filled = filled.and(filler.await.map_err(super::panicked)?);
        }
        filled
    }

    async fn fill_some(self, client: Client, next: Rc<RefCell<u64>>) -> Result<(), Failure> {
        let still = Bytes::from(vec![b's'; STILL_BYTES]);
        let changed = Bytes::from(vec![b'c'; self.changed_bytes]);
        loop {
            let number = *next.borrow();
            *next.borrow_mut() += 1;
            let (key, value) = match number {
                _ if number < self.still => (Bytes::from(State::key(number)), &still),
                _ if number < self.still + self.changed => (self.changed_key(number - self.still), &changed),
                _ => return Ok(()),
            };
            client.put(key, value.clone()).await.map_err(access::failure)?;
        }
    }
}

impl Lanes {
    pub fn start(clients: &[Client], state: State, in_flight: usize) -> Lanes {
        let counted =
            Counted { begun: Instant::now(), records: 0, latency: histogram(), is_over: false, failure: None };
        let counted = Rc::new(RefCell::new(counted));
        let lane = |number: usize| {
            let client = clients[number % clients.len()].clone();
            tokio::task::spawn_local(run(client, state, number as u64, counted.clone()))
        };
        let tasks = (0..in_flight).map(lane).collect();
        Lanes { counted, tasks }
    }

    /// From now on it is counted anew.
    pub fn begin(&self) {
        let mut counted = self.counted.borrow_mut();
        (counted.begun, counted.records) = (Instant::now(), 0);
        counted.latency.reset();
    }

    /// What was done since.
    pub fn take(&self) -> Result<Phase, Failure> {
        self.check()?;
        let counted = self.counted.borrow();
        Ok(Phase { time: counted.begun.elapsed(), records: counted.records, latency: counted.latency.clone() })
    }

    /// Whether it goes on.
    pub fn check(&self) -> Result<(), Failure> {
        match self.counted.borrow_mut().failure.take() {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }

    pub async fn end(self) -> Result<(), Failure> {
        self.counted.borrow_mut().is_over = true;
        for task in self.tasks {
            task.await.map_err(super::panicked)?;
        }
        match Rc::into_inner(self.counted).expect("all lanes have ended").into_inner().failure {
            Some(failure) => Err(failure),
            None => Ok(()),
        }
    }
}

/// One change after another.
async fn run(client: Client, state: State, seed: u64, counted: Rc<RefCell<Counted>>) {
    let mut random = Random::seeded(seed);
    let value = Bytes::from(vec![b'x'; state.changed_bytes]);
    while !counted.borrow().is_over {
        let key = state.changed_key(random.below(state.changed));
        let begun = Instant::now();
        let put = client.put(key, value.clone()).await;
        let mut counted = counted.borrow_mut();
        match put {
            // One that was sent in the phase before says nothing of this one.
            Ok(_) if begun < counted.begun => {}
            Ok(_) => {
                counted.records += 1;
                let nanoseconds = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
                counted.latency.saturating_record(nanoseconds);
            }
            Err(error) => {
                counted.failure.get_or_insert(access::failure(error));
                counted.is_over = true;
            }
        }
    }
}

fn histogram() -> Histogram<u64> {
    let made = Histogram::new_with_bounds(1, TIMEOUT.as_nanos() as u64, 3);
    made.expect("the bounds are a histogram's")
}
