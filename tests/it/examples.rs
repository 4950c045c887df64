//! The examples, run as a newcomer runs them, and what they print.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use trilith::cli::Exit;
use trilith::cli::configuration::ClientConfiguration;
use trilith::cli::local::{LocalCluster, LocalOptions};
use trilith::client::{Client, ClientOptions};
use trilith::codec::encode_command;
use trilith::net::{ClientConnection, Consistency, Identity, Request, RequestBody, ResponseBody, SubmitResult};
use trilith::types::{Command as Head, Data, NodeId, RequestNumber, Service, SessionId};

use crate::processes::{PATIENCE, beside_few, block_on};

/// The example's program, built beside this test by `cargo test`.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own program");
    let profile = test.ancestors().nth(2).expect("it lies in target/PROFILE/deps");
    profile.join("examples").join(name)
}

/// Runs an example on a directory for its log, which is made if it is not there.
fn run(name: &str, directory: &Path, more: &[&str]) -> Output {
    Command::new(example(name)).arg(directory).args(more).output().expect(
        "the example is built: `cargo test` builds it, and `cargo test --test it` needs `cargo build --examples` before",
    )
}

fn printed_in(name: &str, directory: &Path) -> String {
    let output = run(name, directory, &[]);
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What an example prints when it has a new directory for its log.
fn printed(name: &str) -> String {
    let home = tempfile::tempdir().expect("a directory can be made");
    printed_in(name, &home.path().join("log"))
}

#[test]
fn embed_log_appends_and_comes_back() {
    let _share = beside_few();
    let expected = "a new log\n\
                    durable at index 1\n\
                    durable up to index 1001\n\
                    a batch of 2 records\n\
                    opened again: entries 1 to 1003\n\
                    1002: debit\n\
                    1003: credit\n";
    assert_eq!(printed("embed_log"), expected);
}

#[test]
fn embed_log_says_what_is_wrong_and_what_to_do() {
    let _share = beside_few();
    let home = tempfile::tempdir().expect("a directory can be made");
    std::fs::write(home.path().join("x"), "a file of somebody's").expect("there is room");
    let output = run("embed_log", home.path(), &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && output.stdout.is_empty(), "{output:?}");
    let [error, next] = said.lines().collect::<Vec<_>>()[..] else { panic!("{said}") };
    assert!(error.starts_with("error: ") && error.contains("holds \"x\", and no log"), "{error}");
    assert_eq!(next, "next: name a directory that is empty, or that is not there yet");
}

#[test]
fn follow_log_follows_from_another_thread() {
    let _share = beside_few();
    assert_eq!(printed("follow_log"), "the follower holds 9999 records, the last is \"the end\"\n");
}

#[test]
fn redo_log_comes_back_after_a_crash() {
    let _share = beside_few();
    let expected = "0 rows: a checkpoint at 0, and the log behind it\n\
                    120 rows: a checkpoint at 100, and the log behind it\n\
                    key 49 is old, key 50 is new\n";
    let home = tempfile::tempdir().expect("a directory can be made");
    // Two levels that are not there.
    let directory = home.path().join("some/where");
    assert_eq!(printed_in("redo_log", &directory), expected);
    let again = "120 rows: a checkpoint at 100, and the log behind it\n\
                 120 rows: a checkpoint at 270, and the log behind it\n\
                 key 49 is old, key 50 is new\n";
    assert_eq!(printed_in("redo_log", &directory), again);
}

/// A change that cannot be read back was in the log before it was looked at: each later start ended there.
#[test]
fn redo_log_refuses_what_is_no_change_and_goes_on() {
    let _share = beside_few();
    let home = tempfile::tempdir().expect("a directory can be made");
    let directory = home.path().join("log");
    for change in ["oops", "", "two=lines\nof=a checkpoint"] {
        let output = run("redo_log", &directory, &[change]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1), "{output:?}");
        assert!(said.contains("is no line KEY=VALUE") && !said.contains("panicked"), "{said}");
    }
    let output = run("redo_log", &directory, &["key 200=odd = \r"]);
    assert_eq!(output.status.code(), None, "it crashes as it should: {output:?}");
    let printed = printed_in("redo_log", &directory);
    let checkpoint = std::fs::read_to_string(directory.join("checkpoint")).expect("it was saved");
    assert!(checkpoint.starts_with("270\n") && checkpoint.contains("\nkey 200=odd = \r\n"), "{checkpoint}");
    assert!(
        printed.ends_with("121 rows: a checkpoint at 270, and the log behind it\nkey 49 is old, key 50 is new\n"),
        "{printed}"
    );
}

#[test]
fn redb_counters_is_killed_and_runs_nothing_twice() {
    let _share = beside_few();
    let home = tempfile::tempdir().expect("a directory can be made");
    let directory = home.path().join("cluster");
    for times in 0..2 {
        let (before, behind) = (times * 1000, (times + 1) * 1000);
        let expected = format!(
            "apples: {before}\n\
             1000 commands, and the node killed in their midst; apples: {behind}\n\
             killed and started again; apples: {behind}; commands run again: 0\n"
        );
        assert_eq!(printed_in("redb_counters", &directory), expected);
    }
}

const NODE: NodeId = NodeId(1);

/// One node of the example, started.
fn counters(home: &Path) -> LocalCluster {
    let options = LocalOptions { nodes: 1, segment_bytes: 1 << 20, io: None };
    let cluster = LocalCluster::prepare(&home.join("cluster"), &example("redb_counters"), &options);
    let mut cluster = cluster.unwrap_or_else(|failure| panic!("{failure}"));
    cluster.start(NODE, PATIENCE).unwrap_or_else(|failure| panic!("{failure}"));
    cluster
}

fn kill_and_start(cluster: &mut LocalCluster) {
    cluster.kill(NODE).unwrap_or_else(|failure| panic!("{failure}"));
    cluster.start(NODE, PATIENCE).unwrap_or_else(|failure| panic!("{failure}"));
}

fn identity(client: &ClientConfiguration) -> Identity {
    Identity::load(&client.certificate, &client.key, &client.ca, None).expect("the files are there")
}

async fn connected(client: &ClientConfiguration) -> Client {
    let nodes = client.nodes.iter().map(|node| (node.id, node.address)).collect();
    let options = ClientOptions { timeout: PATIENCE, ..ClientOptions::new(nodes, identity(client)) };
    Client::connect(options).await.expect("it serves")
}

/// A counter, as linearizable reads show it; or, of no name, how many commands the node's process has run.
async fn shown(client: &Client, name: &'static str) -> u64 {
    let answer = client.query(name.into(), Consistency::Linearizable).await.expect("it serves");
    String::from_utf8_lossy(&answer).parse().expect("a number")
}

/// Callers that add to one counter, each when it has the answer to the one before, until they are told to end: what each
/// of them was answered.
fn added(client: &ClientConfiguration, answered: &AtomicU64, is_over: &AtomicBool) -> Vec<u64> {
    block_on(async {
        let client = connected(client).await;
        let caller = async || {
            let mut answers = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                let (_, answer) = client.command("pears".into()).await.expect("it is answered in time");
                answers.push(String::from_utf8_lossy(&answer).parse().expect("a number"));
                answered.fetch_add(1, Ordering::Relaxed);
            }
            answers
        };
        let (one, two, three, four) = tokio::join!(caller(), caller(), caller(), caller());
        [one, two, three, four].concat()
    })
}

/// An answer is what the counter showed when the command was run: one that was lost or run twice leaves a gap.
#[test]
fn redb_counters_killed_under_load_loses_no_answered_command_and_runs_none_twice() {
    let _share = beside_few();
    const KILLS: u64 = 8;
    const BETWEEN: u64 = 200;
    let _share = beside_few();
    let home = tempfile::tempdir().expect("a directory can be made");
    let mut cluster = counters(home.path());
    let configuration = cluster.client().unwrap_or_else(|failure| panic!("{failure}"));
    let (answered, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let mut answers = std::thread::scope(|scope| {
        let adding = scope.spawn(|| added(&configuration, &answered, &is_over));
        for _ in 0..KILLS {
            let due = answered.load(Ordering::Relaxed) + BETWEEN;
            while answered.load(Ordering::Relaxed) < due {
                assert!(!adding.is_finished(), "a caller has failed");
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            kill_and_start(&mut cluster);
        }
        is_over.store(true, Ordering::Relaxed);
        adding.join().expect("all are answered")
    });
    answers.sort_unstable();
    println!("redb_counters: {} commands, {KILLS} kills", answers.len());
    assert!(answers.len() as u64 >= KILLS * BETWEEN);
    assert_eq!(answers, (1..=answers.len() as u64).collect::<Vec<_>>(), "each once");
    kill_and_start(&mut cluster);
    block_on(async {
        let client = connected(&configuration).await;
        assert_eq!(shown(&client, "pears").await, answers.len() as u64);
        assert_eq!(shown(&client, "").await, 0, "commands run again");
    });
    cluster.stop_all(PATIENCE).unwrap_or_else(|failure| panic!("{failure}"));
}

/// The results of one request, over a connection of its own.
async fn submitted(configuration: &ClientConfiguration, command: Data) -> SubmitResult {
    let address = configuration.nodes[0].address;
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        assert!(std::time::Instant::now() < deadline, "it does not lead");
        let connected = ClientConnection::connect(&identity(configuration), address).await;
        let (connection, mut responses) = connected.expect("it serves");
        let body = RequestBody::Submit { commands: vec![command.clone()] };
        connection.send(&Request { id: 1, body }).await.expect("it is there");
        match responses.next().await.expect("it answers").body {
            ResponseBody::Submitted { mut results } => return results.remove(0),
            // It does not lead yet.
            ResponseBody::Refused(_) => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            other => panic!("{other:?}"),
        }
    }
}

/// By hand: the same number of the same session, before a kill and after it.
#[test]
fn redb_counters_answers_a_retry_as_it_did_before_it_was_killed() {
    let _share = beside_few();
    let home = tempfile::tempdir().expect("a directory can be made");
    let mut cluster = counters(home.path());
    let configuration = cluster.client().unwrap_or_else(|failure| panic!("{failure}"));
    let of = |service, session, number: u64| {
        let number = RequestNumber(number);
        Head { service, session, number, lowest_unanswered: number }
    };
    let register = encode_command(&of(Service::Register, SessionId(0), 0), &[]);
    let registered = block_on(submitted(&configuration, register));
    let SubmitResult::Run { first, .. } = registered else { panic!("{registered:?}") };
    let plums = encode_command(&of(Service::Machine, SessionId(first.0), 1), b"plums");
    let answer = block_on(submitted(&configuration, plums.clone()));
    assert!(matches!(&answer, SubmitResult::Done { answer, .. } if answer == &Bytes::from_static(b"1")), "{answer:?}");
    kill_and_start(&mut cluster);
    assert_eq!(block_on(submitted(&configuration, plums)), answer);
    block_on(async {
        let client = connected(&configuration).await;
        assert_eq!((shown(&client, "plums").await, shown(&client, "").await), (1, 0));
    });
    cluster.stop_all(PATIENCE).unwrap_or_else(|failure| panic!("{failure}"));
}

/// What was kept of another node's life is refused, and nothing is made of it; without it the log makes the state anew.
#[test]
fn redb_counters_refuses_the_state_of_another_node_and_makes_its_own_anew() {
    let _share = beside_few();
    let home = tempfile::tempdir().expect("a directory can be made");
    let (mut one, mut other) = (counters(&home.path().join("one")), counters(&home.path().join("other")));
    let configuration = other.client().unwrap_or_else(|failure| panic!("{failure}"));
    for cluster in [&one, &other] {
        let configuration = cluster.client().unwrap_or_else(|failure| panic!("{failure}"));
        block_on(async { connected(&configuration).await.command("figs".into()).await }).expect("it serves");
    }
    one.kill(NODE).and_then(|()| other.kill(NODE)).unwrap_or_else(|failure| panic!("{failure}"));
    let file = |cluster: &LocalCluster| cluster.data_directory(NODE).join("counters.redb");
    std::fs::copy(file(&one), file(&other)).expect("it can be copied");
    let refused = other.start(NODE, PATIENCE).expect_err("it is another's");
    assert_eq!(refused.exit, Exit::WrongIdentity, "{refused}");
    std::fs::remove_file(file(&other)).expect("it is there");
    other.start(NODE, PATIENCE).unwrap_or_else(|failure| panic!("{failure}"));
    block_on(async {
        let client = connected(&configuration).await;
        assert_eq!((shown(&client, "figs").await, shown(&client, "").await), (1, 1), "from the log");
    });
    other.stop_all(PATIENCE).unwrap_or_else(|failure| panic!("{failure}"));
}

/// The log is put back from an older copy, the state is not: what was acknowledged is not in that log any more.
#[test]
fn redb_counters_has_no_voice_when_its_log_lacks_what_is_in_its_state() {
    let _share = beside_few();
    let home = tempfile::tempdir().expect("a directory can be made");
    let mut cluster = counters(home.path());
    let configuration = cluster.client().unwrap_or_else(|failure| panic!("{failure}"));
    let add = || block_on(async { connected(&configuration).await.command("figs".into()).await }).expect("it serves");
    add();
    cluster.stop_all(PATIENCE).unwrap_or_else(|failure| panic!("{failure}"));
    let (directory, copy) = (cluster.data_directory(NODE), home.path().join("copy"));
    copied(&directory, &copy);
    cluster.start(NODE, PATIENCE).unwrap_or_else(|failure| panic!("{failure}"));
    add();
    cluster.stop_all(PATIENCE).unwrap_or_else(|failure| panic!("{failure}"));
    let newer = std::fs::read(directory.join("counters.redb")).expect("it is there");
    std::fs::remove_dir_all(&directory).expect("it can be removed");
    copied(&copy, &directory);
    std::fs::write(directory.join("counters.redb"), newer).expect("there is room");
    let refused = cluster.start(NODE, PATIENCE).expect_err("its log is older than its state");
    assert_eq!(refused.exit, Exit::Corrupt, "{refused}");
    let said = std::fs::read_to_string(directory.join("no-voice")).expect("it never starts again");
    assert!(said.contains("has no such entry"), "{said}");
}

fn copied(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory can be made");
    for entry in std::fs::read_dir(from).expect("it can be listed") {
        let entry = entry.expect("it can be listed");
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match from.is_dir() {
            true => copied(&from, &to),
            false => drop(std::fs::copy(&from, &to).expect("it can be copied")),
        }
    }
}

#[cfg(feature = "openraft")]
#[test]
fn openraft_log_votes_and_comes_back() {
    let _share = beside_few();
    let expected = "vote T2-N1:uncommitted, committed T2-N1-2\n\
                    purged T1-N1-0\n\
                    T1-N1-1: two\n\
                    T2-N1-2: three\n";
    assert_eq!(printed("openraft_log"), expected);
}
