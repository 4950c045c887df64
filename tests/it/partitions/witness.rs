//! Clients that keep account of each request by itself: when it was made, what was told, and when.
//!
//! Writers wait for one record after another, and not long, so that some outcomes stay unknown. Readers ask one node
//! each, whichever leads, for linearizable reads of what was acknowledged last.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use trilith::cli::configuration::ClientConfiguration;
use trilith::client::{Client, ClientOptions, Error};
use trilith::net::{Consistency, Identity, Records};
use trilith::types::{Index, NodeId};

use crate::processes::check::Seen;
use crate::processes::load::{Given, Journal, Told, record};
use crate::processes::{block_on, connect};

const WRITERS: usize = 4;
/// The number of the first one, above those of the load.
const FIRST_WRITER: usize = 100;
/// Shorter than any election.
const WRITE_TIMEOUT: Duration = Duration::from_millis(250);
const READ_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two requests of one client.
const PACE: Duration = Duration::from_millis(4);
/// Entries that one read asks for, from the one that was acknowledged last.
const READ_ENTRIES: u64 = 8;
/// After a refusal.
const RETRY: Duration = Duration::from_millis(20);
/// A writer sets its key in the map after so many records.
const RECORDS_A_PUT: u64 = 16;

/// The clients, at work.
pub struct Witness {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Account>>,
}

#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    /// The highest index that any of the writers was told.
    acknowledged: AtomicU64,
}

/// What became of all that they asked for.
#[derive(Default)]
pub struct Account {
    pub journals: Vec<Journal>,
    pub reads: Vec<(NodeId, Seen)>,
    pub reads_refused: u64,
}

impl Account {
    /// How many outcomes nobody knows, and how many records were certainly not taken.
    pub fn uncertain(&self) -> (usize, usize) {
        let told = |what: Told| {
            let all = self.journals.iter().flat_map(|journal| &journal.records);
            all.filter(|given| given.told == what).count()
        };
        (told(Told::Unknown), told(Told::Absent))
    }
}

impl Witness {
    /// On the host where the caller is.
    pub fn start(configuration: ClientConfiguration) -> Witness {
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let thread = std::thread::spawn(move || block_on(observe(configuration, theirs)));
        Witness { shared, thread: Some(thread) }
    }

    pub fn stop(mut self) -> Account {
        self.shared.is_over.store(true, Ordering::SeqCst);
        self.thread.take().expect("it is stopped once").join().expect("no client panics")
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

async fn observe(configuration: ClientConfiguration, shared: Arc<Shared>) -> Account {
    let configuration = Arc::new(configuration);
    let writers: Vec<_> = (FIRST_WRITER..FIRST_WRITER + WRITERS)
        .map(|writer| tokio::spawn(write(writer, configuration.clone(), shared.clone())))
        .collect();
    let readers: Vec<_> = configuration.nodes.iter().map(|node| node.id).collect();
    let readers: Vec<_> =
        readers.into_iter().map(|node| tokio::spawn(read(node, configuration.clone(), shared.clone()))).collect();
    let mut account = Account::default();
    for writer in writers {
        account.journals.push(writer.await.expect("no writer panics"));
    }
    for reader in readers {
        let (reads, refused) = reader.await.expect("no reader panics");
        account.reads.extend(reads);
        account.reads_refused += refused;
    }
    account
}

async fn write(writer: usize, configuration: Arc<ClientConfiguration>, shared: Arc<Shared>) -> Journal {
    let (certificate, key, ca) = (&configuration.certificate, &configuration.key, &configuration.ca);
    let identity = Identity::load(certificate, key, ca, None).expect("the files are there");
    let nodes = configuration.nodes.iter().map(|node| (node.id, node.address)).collect();
    let options = ClientOptions { timeout: WRITE_TIMEOUT, ..ClientOptions::new(nodes, identity) };
    let client = Client::start(options).expect("the options are in order");
    let key = Bytes::from(format!("writer-{writer}"));
    let mut records: Vec<Given> = Vec::new();
    while !shared.is_over.load(Ordering::SeqCst) {
        let number = records.len() as u64;
        let begin = Instant::now();
        let told = match client.append(Bytes::from(record(writer, number))).await {
            Ok(index) => {
                shared.acknowledged.fetch_max(index.0, Ordering::SeqCst);
                Told::At(index, Instant::now())
            }
            Err(Error::OutcomeUnknown) => Told::Unknown,
            Err(Error::Unavailable { .. } | Error::Busy | Error::NoSpace) => Told::Absent,
            Err(error) => panic!("record {writer}:{number}: {error}"),
        };
        records.push(Given { begin, told });
        if number.is_multiple_of(RECORDS_A_PUT) {
            // Whatever becomes of it: all nodes' maps must be the same.
            client.put(key.clone(), Bytes::from(number.to_string())).await.ok();
        }
        tokio::time::sleep(PACE).await;
    }
    Journal { writer, is_pipeline: false, records }
}

/// What one node shows, and how often it refuses or does not answer.
async fn read(
    node: NodeId,
    configuration: Arc<ClientConfiguration>,
    shared: Arc<Shared>,
) -> (Vec<(NodeId, Seen)>, u64) {
    let (mut seen, mut refused) = (Vec::new(), 0);
    let mut connection = None;
    while !shared.is_over.load(Ordering::SeqCst) {
        if connection.is_none() {
            connection = connect(&configuration, node, READ_TIMEOUT).await;
        }
        let Some(open) = &mut connection else {
            refused += 1;
            tokio::time::sleep(RETRY).await;
            continue;
        };
        let from = Index(shared.acknowledged.load(Ordering::SeqCst).max(1));
        let begin = Instant::now();
        let to = from.plus(READ_ENTRIES);
        match open.read(from, Some(to), Consistency::Linearizable).await {
            Ok(Records { next, records, commit, .. }) => {
                // One that ends early has shown all there is.
                let shown = if next < to { Index(next.0 - 1) } else { commit };
                seen.push((node, Seen { begin, end: Instant::now(), from, next, records, shown }));
                tokio::time::sleep(PACE).await;
            }
            Err(_) => {
                refused += 1;
                connection = None;
                tokio::time::sleep(RETRY).await;
            }
        }
    }
    (seen, refused)
}
