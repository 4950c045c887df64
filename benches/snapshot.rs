//! What snapshots cost, and what they bring.
//!
//! - a cluster under load while all nodes make one, beside the same without (`trilith bench cluster --snapshot`);
//! - the core's part by itself: the time that it takes to have the state as it is now, to hand it out, and to drop it on
//!   another thread, of a map that goes on being changed;
//! - a follower that was down comes back while writes go on, by the log and by a snapshot;
//! - a start of a node whose state is in a snapshot, with few and with many entries behind that.
//!
//! `SNAPSHOT_STATE_MIB` sets the size of the state, 1024 by default; `SNAPSHOT_ROUNDS` how often one is made, 3;
//! `SNAPSHOT_DOWN_RECORDS` what the follower misses, 1,000,000; `SNAPSHOT_START_RECORDS` the larger log of the starts,
//! 10,000,000, and `SNAPSHOT_STARTS` how many there are of each, 11. `--test` only shows that it works. Arguments name the
//! parts that are wanted: `cluster`, `core`, `log`, `snapshot` (the ways in which a follower comes back), `starts`.

mod connect;

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use connect::connect;
use trilith::cli::configuration::ClientConfiguration;
use trilith::cli::local::{LocalCluster, LocalOptions};
use trilith::client::Client;
use trilith::limits::SEGMENT_BYTES_DEFAULT;
use trilith::machine::command::Command;
use trilith::machine::{Map, StateMachine};
use trilith::net::{Change, NodeStatus};
use trilith::node::driver::checkpoint::Checkpoint;
use trilith::node::sessions::Sessions;
use trilith::random::Random;
use trilith::snapshot::ChunkSource;
use trilith::types::{self, Index, LogId, NodeId, RequestNumber, Service, SessionId, Term};

const PATIENCE: Duration = Duration::from_secs(600);
const PROGRAM: &str = env!("CARGO_BIN_EXE_trilith");
const RECORD_BYTES: usize = 128;
const VALUE_BYTES: usize = 4096;
const SESSIONS: u64 = 1000;
/// How fast nodes write snapshots before the follower comes back.
const COME_BACK_BYTES_PER_SECOND: u64 = 256 << 20;
/// Records that are sent together.
const BATCH: usize = 64;
/// By how much newest segments may differ where two starts are compared.
const NEWEST_SLACK_BYTES: u64 = 4 << 20;
const LOOK: Duration = Duration::from_millis(50);

/// What is measured, by its name.
type Part = (&'static str, fn(&Size));

/// In the order in which they are done.
const PARTS: &[Part] = &[
    ("cluster", cluster),
    ("core", core_alone),
    ("log", |size| come_back(size, Way::Log)),
    ("snapshot", |size| come_back(size, Way::Snapshot)),
    ("starts", starts),
];

/// How much is done.
struct Size {
    state_mib: u64,
    rounds: u64,
    seconds: u64,
    down_records: u64,
    start_records: [u64; 2],
    starts: usize,
    lanes: usize,
}

fn main() {
    let is_test = std::env::args().any(|argument| argument == "--test");
    let set = |name: &str, default: u64| std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default);
    let size = match is_test {
        true => {
            let start_records = [1_000, 10_000];
            Size { state_mib: 4, rounds: 1, seconds: 1, down_records: 5_000, start_records, starts: 3, lanes: 2 }
        }
        false => Size {
            state_mib: set("SNAPSHOT_STATE_MIB", 1024),
            rounds: set("SNAPSHOT_ROUNDS", 3),
            seconds: 10,
            down_records: set("SNAPSHOT_DOWN_RECORDS", 1_000_000),
            start_records: [100_000, set("SNAPSHOT_START_RECORDS", 10_000_000)],
            starts: set("SNAPSHOT_STARTS", 11).max(1) as usize,
            lanes: 16,
        },
    };
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    if let Some(unknown) = asked.iter().find(|name| PARTS.iter().all(|(part, _)| name != part)) {
        let parts: Vec<&str> = PARTS.iter().map(|(name, _)| *name).collect();
        eprintln!("error: no part of this bench is called {unknown}\nnext: name one or more of {}", parts.join(", "));
        std::process::exit(2);
    }
    for (name, part) in PARTS {
        if asked.is_empty() || asked.iter().any(|asked| asked == name) {
            part(&size);
        }
    }
}

/// What was found beside what is wanted.
fn judge(found: f64, is_met: bool, wanted: &str) -> String {
    format!("{found:.2} (wanted: {wanted}; {})", if is_met { "met" } else { "missed" })
}

// ----- a cluster under load

fn cluster(size: &Size) {
    println!("== a cluster under load, while all nodes make a snapshot and without");
    let home = tempfile::tempdir_in(".").expect("a directory can be made here");
    let mut command = std::process::Command::new(PROGRAM);
    command.args(["bench", "cluster", "--snapshot", "--directory"]).arg(home.path()).env_remove("TRILITH_CLIENT");
    for (flag, number) in [("--state-mib", size.state_mib), ("--rounds", size.rounds), ("--seconds", size.seconds)] {
        command.args([flag, &number.to_string()]);
    }
    let status = command.status().expect("the binary runs");
    assert!(status.success(), "{status}");
}

// ----- the core's part by itself

/// The state is taken, handed to a thread that encodes and drops it, and changed meanwhile; the longest of each.
fn core_alone(size: &Size) {
    let (mut sessions, mut machine) = (Sessions::new(), Map::new());
    for number in 1..=SESSIONS {
        let register = types::Command {
            service: Service::Register,
            session: SessionId(0),
            number: RequestNumber(0),
            lowest_unanswered: RequestNumber(0),
        };
        sessions.begin(Index(number), &register);
    }
    let entries = (size.state_mib << 20) / VALUE_BYTES as u64;
    (0..entries).for_each(|number| put(&mut machine, number, VALUE_BYTES));
    let (orders, ordered) = channel::<Checkpoint>();
    let (done, dropped) = channel();
    let writer = std::thread::spawn(move || {
        for mut checkpoint in ordered {
            let (mut piece, mut bytes) = (BytesMut::new(), 0);
            while checkpoint.encode_next(&mut piece) {
                bytes += piece.len();
                piece.clear();
            }
            let began = Instant::now();
            drop(checkpoint);
            done.send((bytes, began.elapsed())).expect("the core waits for it");
        }
    });
    let mut longest = [Duration::ZERO; 4];
    let mut random = Random::seeded(1);
    let mut encoded = 0;
    for _ in 0..size.rounds.max(5) {
        let began = Instant::now();
        let checkpoint = Checkpoint::of(&sessions, &machine).expect("a map gives snapshots");
        let taken = began.elapsed();
        let began = Instant::now();
        orders.send(checkpoint).expect("the thread lives");
        let handed = began.elapsed();
        let mut changed = Duration::ZERO;
        let drop_there = loop {
            if let Ok((bytes, took)) = dropped.try_recv() {
                encoded = bytes;
                break took;
            }
            let began = Instant::now();
            put(&mut machine, random.below(entries), VALUE_BYTES);
            changed = changed.max(began.elapsed());
        };
        for (most, found) in longest.iter_mut().zip([taken, handed, changed, drop_there]) {
            *most = found.max(*most);
        }
    }
    drop(orders);
    writer.join().expect("it does not panic");
    let [taken, handed, changed, drop_there] = longest.map(|time| time.as_nanos() as f64 / 1000.0);
    println!(
        "== the core's part by itself: {encoded} bytes in {entries} entries, {SESSIONS} sessions; longest of each, us"
    );
    println!("take the state: {}", judge(taken, taken <= 1000.0, "at most 1000"));
    println!("hand it over: {}", judge(handed, handed <= 1000.0, "at most 1000"));
    println!("drop it, on the thread that wrote it: {drop_there:.1}");
    println!("a change of one entry meanwhile, whatever kept this thread from running among it: {changed:.1}");
}

fn put(machine: &mut Map, number: u64, bytes: usize) {
    let (key, value) = (Bytes::from(format!("state/{number:010}")), Bytes::from(vec![number as u8; bytes]));
    let command = Command::Put { key, value }.encode().expect("it is small");
    machine.apply(LogId::new(Term(1), Index(1 + number)), &command).expect("the map takes it");
}

// ----- a follower that comes back

/// How it gets what it lacks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Log,
    Snapshot,
}

/// Records, 64 in a batch and one batch in flight for each lane, until it is told to end.
struct Load {
    records: Rc<Cell<u64>>,
    is_over: Rc<Cell<bool>>,
    lanes: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(client: &Client, lanes: usize) -> Load {
        let (records, is_over) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
        let lane = |_| {
            let (client, records, is_over) = (client.clone(), records.clone(), is_over.clone());
            tokio::task::spawn_local(async move {
                let batch = vec![Bytes::from(vec![b'x'; RECORD_BYTES]); BATCH];
                while !is_over.get() {
                    client.append_batch(batch.clone()).await.expect("a majority is up");
                    records.set(records.get() + BATCH as u64);
                }
            })
        };
        let lanes = (0..lanes).map(lane).collect();
        Load { records, is_over, lanes }
    }

    /// Records per second until it is so.
    async fn rate_until(&self, is_so: impl AsyncFn(u64, Duration) -> bool) -> (f64, Duration) {
        let (began, before) = (Instant::now(), self.records.get());
        while !is_so(self.records.get() - before, began.elapsed()).await {
            assert!(began.elapsed() < PATIENCE, "it does not come to an end");
            tokio::time::sleep(LOOK).await;
        }
        let took = began.elapsed();
        ((self.records.get() - before) as f64 / took.as_secs_f64(), took)
    }

    async fn end(self) {
        self.is_over.set(true);
        for lane in self.lanes {
            lane.await.expect("it does not panic");
        }
    }
}

fn come_back(size: &Size, way: Way) {
    let home = tempfile::tempdir_in(".").expect("a directory can be made here");
    let cluster = RefCell::new(prepare(&home.path().join("cluster"), 3));
    cluster.borrow().configure("snapshot_bytes_per_second", COME_BACK_BYTES_PER_SECOND).expect("files can be written");
    if way == Way::Snapshot {
        // Else what it lacks might be in the tail that is kept for it.
        cluster.borrow().configure("follower_tail_bytes", 0).expect("files can be written");
    }
    cluster.borrow_mut().start_all(PATIENCE).expect("the nodes serve");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let local = tokio::task::LocalSet::new();
    let told = local.block_on(&runtime, async {
        let admin = cluster.borrow().admin_file();
        let client = connected(&admin).await;
        if way == Way::Snapshot {
            fill(&client, (size.state_mib << 20) / VALUE_BYTES as u64).await;
        }
        let nodes: Vec<NodeId> = client.statuses().await.into_iter().map(|(node, ..)| node).collect();
        let is_follower = |node: &&NodeId| Some(**node) != client.leader();
        let follower = *nodes.iter().rfind(is_follower).expect("there are three");
        let load = Load::start(&client, size.lanes);
        let seconds = Duration::from_secs(size.seconds);
        load.rate_until(async |_, time| time >= seconds / 2).await;
        let (all, _) = load.rate_until(async |_, time| time >= seconds).await;
        // By their defaults nodes make them: without one it would begin by applying all that its log has.
        snapshot(&client, &nodes).await;
        let had = client.status(follower).await.expect("it answers").last.index;
        cluster.borrow_mut().kill(follower).expect("it is a child");
        let (without, _) = load.rate_until(async |records, _| records >= size.down_records).await;
        if way == Way::Snapshot {
            let up: Vec<NodeId> = nodes.iter().copied().filter(|node| *node != follower).collect();
            give_up_log(&client, &up).await;
            // Nodes look once a second for what may go.
            tokio::time::sleep(Duration::from_secs(3)).await;
        }
        let missed = leader_status(&client).await.last.index.0 - had.0;
        cluster.borrow_mut().start(follower, PATIENCE).expect("it serves");
        let behind_max = (4 * size.lanes * BATCH) as u64;
        let by_second = RefCell::new(vec![0]);
        let caught_up = async |records, time: Duration| {
            if time.as_secs() as usize >= by_second.borrow().len() {
                by_second.borrow_mut().push(records);
            }
            lag(&client, follower).await.is_some_and(|lag| lag <= behind_max)
        };
        let (during, took) = load.rate_until(caught_up).await;
        let thousands = |pair: &[u64]| ((pair[1] - pair[0]) / 1000).to_string();
        let by_second: Vec<String> = by_second.borrow().windows(2).map(thousands).collect();
        load.end().await;
        let log = std::fs::read_to_string(home.path().join(format!("cluster/node-{follower}.log")));
        let found = match log.expect("it was made").contains("another node's snapshot is this node's state") {
            true => Way::Snapshot,
            false => Way::Log,
        };
        (all, without, during, took, missed, found, by_second)
    });
    let (all, without, during, took, missed, found, by_second) = told;
    println!("== a follower comes back that is to get what it lacks by {way:?}, and got it by {found:?}");
    println!("records/s with all nodes {all:.0}, while it is down {without:.0}, while it catches up {during:.0}");
    println!("it lacked {missed} entries, and had caught up after {:.1} s", took.as_secs_f64());
    println!("thousands of records in each second of that: {}", by_second.join(" "));
    let ratio = during / all;
    println!("while it catches up : with all nodes: {}", judge(ratio, ratio >= 0.8, "at least 0.8"));
    println!("while it catches up : while it is down: {:.2}", during / without);
    cluster.into_inner().stop_all(PATIENCE).expect("the nodes end when asked to");
}

/// Two snapshots, and nothing of the log before them is wanted any more.
async fn give_up_log(client: &Client, nodes: &[NodeId]) {
    for _ in 0..2 {
        let first = snapshot(client, nodes).await;
        client.change(Change::Trim { first }).await.expect("a majority is up");
    }
}

/// Has all nodes make a snapshot, and waits until these have it: its point.
async fn snapshot(client: &Client, nodes: &[NodeId]) -> Index {
    let made = client.snapshot().await.expect("the leader makes one");
    let has_it = |status: NodeStatus| status.snapshots.last.is_some_and(|last| last.point >= made.point);
    for node in nodes {
        let began = Instant::now();
        while !client.status(*node).await.is_ok_and(has_it) {
            assert!(began.elapsed() < PATIENCE, "it does not come to an end");
            tokio::time::sleep(LOOK).await;
        }
    }
    made.point.index
}

/// By how many entries it is behind, if it answers.
async fn lag(client: &Client, follower: NodeId) -> Option<u64> {
    let last = leader_status(client).await.last.index.0;
    let found = client.status(follower).await.ok()?;
    Some(last.saturating_sub(found.last.index.0.min(found.applied.0)))
}

async fn leader_status(client: &Client) -> NodeStatus {
    let leader = client.leader().expect("records were acknowledged");
    client.status(leader).await.expect("it answers")
}

// ----- starts

/// A node alone: its state is in a snapshot, and nothing of the log before that is wanted any more.
struct Settled {
    cluster: LocalCluster,
    records: u64,
    /// In the segment that was written last, which a start reads whole.
    newest_bytes: u64,
    starts: Vec<Duration>,
    mib: Vec<u64>,
    _home: tempfile::TempDir,
}

fn starts(size: &Size) {
    let [few, many] = size.start_records;
    let few = settle(size, few, None);
    let many = settle(size, many, Some(few.newest_bytes));
    let mut settled = [few, many];
    for round in 0..size.starts {
        // Neither always comes right behind the other.
        settled.rotate_left(round % 2);
        for one in &mut settled {
            // What others have written is on the disk, and is not written while this one starts.
            rustix::fs::sync();
            let began = Instant::now();
            one.cluster.start(NodeId(1), PATIENCE).expect("it serves");
            one.starts.push(began.elapsed());
            one.mib.push(memory_mib(one.cluster.child(NodeId(1)).expect("it was started").id()));
            one.cluster.stop_all(PATIENCE).expect("it ends when asked to");
        }
    }
    settled.sort_by_key(|one| one.records);
    println!("== starts of a node alone, {} of each in turn, by the entries behind its snapshot", size.starts);
    println!(
        "entries | in the newest segment, MiB | start s, median (least to most) | MiB in memory, most | \
         log and snapshots on disk, MiB"
    );
    let mut medians = Vec::new();
    for one in &mut settled {
        one.starts.sort_unstable();
        let [least, median, most] =
            [0, one.starts.len() / 2, one.starts.len() - 1].map(|at| one.starts[at].as_secs_f64());
        medians.push(median);
        let disk = disk_mib(&one.cluster.data_directory(NodeId(1)));
        let (newest, memory) = (one.newest_bytes >> 20, one.mib.iter().max().expect("it was started"));
        println!("{} | {newest} | {median:.3} ({least:.3} to {most:.3}) | {memory} | {disk}", one.records);
    }
    let ratio = medians[1] / medians[0];
    println!("many : few: {}", judge(ratio, ratio <= 1.2, "at most 1.2"));
}

/// `newest_bytes` is what the newest segment is to hold in the end, about: a start reads it whole, and how full it is has
/// nothing to do with how much there is before it.
fn settle(size: &Size, records: u64, newest_bytes: Option<u64>) -> Settled {
    let home = tempfile::tempdir_in(".").expect("a directory can be made here");
    let mut cluster = prepare(&home.path().join("cluster"), 1);
    cluster.start_all(PATIENCE).expect("it serves");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let client = connected(&cluster.admin_file()).await;
        fill(&client, 256).await;
        let load = Load::start(&client, size.lanes);
        load.rate_until(async |done, _| done >= records).await;
        load.end().await;
        if let Some(wanted) = newest_bytes {
            write_until_newest_holds(&client, &cluster.data_directory(NodeId(1)), wanted).await;
        }
        give_up_log(&client, &[NodeId(1)]).await;
        // What is no longer wanted is given up at leisure.
        tokio::time::sleep(Duration::from_secs(size.seconds)).await;
    });
    let newest_bytes = newest_segment_bytes(&cluster.data_directory(NodeId(1)));
    cluster.stop_all(PATIENCE).expect("it ends when asked to");
    Settled { cluster, records, newest_bytes, starts: Vec::new(), mib: Vec::new(), _home: home }
}

async fn write_until_newest_holds(client: &Client, directory: &Path, wanted: u64) {
    let batch = vec![Bytes::from(vec![b'x'; RECORD_BYTES]); BATCH];
    loop {
        let found = newest_segment_bytes(directory);
        if found.abs_diff(wanted) < NEWEST_SLACK_BYTES {
            return;
        }
        let missing = wanted.checked_sub(found).unwrap_or(SEGMENT_BYTES_DEFAULT - found + wanted);
        // Records have heads, and frames too: half of it comes to less than all.
        for _ in 0..missing / 2 / (BATCH * RECORD_BYTES) as u64 + 1 {
            client.append_batch(batch.clone()).await.expect("a majority is up");
        }
    }
}

/// What is written of the newest segment.
fn newest_segment_bytes(directory: &Path) -> u64 {
    let mut command = std::process::Command::new(PROGRAM);
    let output = command.args(["wal", "inspect", "-o", "json"]).arg(directory).output().expect("the binary runs");
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    let newest = shown["segments"].as_array().and_then(|segments| segments.last()).expect("there is one");
    newest["used_bytes"].as_u64().expect("a number")
}

// ----- what all of them need

fn prepare(at: &Path, nodes: u64) -> LocalCluster {
    let options = LocalOptions { nodes, segment_bytes: SEGMENT_BYTES_DEFAULT, io: None };
    let cluster = LocalCluster::prepare(at, Path::new(PROGRAM), &options).expect("files can be made");
    // When one is made is for the bench to say.
    for key in ["snapshot_entries", "snapshot_bytes"] {
        cluster.configure(key, 0).expect("files can be written");
    }
    cluster.configure("snapshot_bytes_per_second", 1 << 30).expect("files can be written");
    cluster
}

/// As an administrator.
async fn connected(file: &Path) -> Client {
    connect(&ClientConfiguration::load(file).expect("it was made"), PATIENCE).await
}

async fn fill(client: &Client, entries: u64) {
    let next = Rc::new(Cell::new(0));
    let lane = |_| {
        let (client, next) = (client.clone(), next.clone());
        tokio::task::spawn_local(async move {
            while next.get() < entries {
                let key = Bytes::from(format!("state/{:010}", next.replace(next.get() + 1)));
                client.put(key, Bytes::from(vec![b's'; VALUE_BYTES])).await.expect("a majority is up");
            }
        })
    };
    for lane in (0..256).map(lane).collect::<Vec<_>>() {
        lane.await.expect("it does not panic");
    }
}

fn memory_mib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM")).expect("Linux has it");
    let kib = line.split_whitespace().nth(1).and_then(|word| word.parse::<u64>().ok()).expect("a number of KiB");
    kib >> 10
}

/// Of all files below.
fn disk_mib(at: &Path) -> u64 {
    fn bytes(at: &Path) -> u64 {
        let entries = std::fs::read_dir(at).expect("it is there").map(|entry| entry.expect("it can be listed"));
        entries.map(|entry| if entry.path().is_dir() { bytes(&entry.path()) } else { length(&entry) }).sum()
    }
    fn length(entry: &std::fs::DirEntry) -> u64 {
        entry.metadata().expect("it is there").len()
    }
    bytes(at) >> 20
}
