//! The examples, run as a newcomer runs them, and what they print.

use std::path::PathBuf;
use std::process::Command;

/// The example's program, built beside this test by `cargo test`.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own program");
    let profile = test.ancestors().nth(2).expect("it lies in target/PROFILE/deps");
    profile.join("examples").join(name)
}

/// What an example prints when it has a new directory for its log.
fn printed(name: &str) -> String {
    let home = tempfile::tempdir().expect("a directory can be made");
    let output = Command::new(example(name)).arg(home.path().join("log")).output().expect(
        "the example is built: `cargo test` builds it, and `cargo test --test it` needs `cargo build --examples` before",
    );
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn embed_log_appends_and_comes_back() {
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
fn follow_log_follows_from_another_thread() {
    assert_eq!(printed("follow_log"), "the follower holds 9999 records, the last is \"the end\"\n");
}

#[test]
fn redo_log_comes_back_after_a_crash() {
    let expected = "0 rows: a checkpoint at 0, and the log behind it\n\
                    120 rows: a checkpoint at 100, and the log behind it\n\
                    key 49 is old, key 50 is new\n";
    assert_eq!(printed("redo_log"), expected);
}

#[cfg(feature = "openraft")]
#[test]
fn openraft_log_votes_and_comes_back() {
    let expected = "vote T2-N1:uncommitted, committed T2-N1-2\n\
                    purged T1-N1-0\n\
                    T1-N1-1: two\n\
                    T2-N1-2: three\n";
    assert_eq!(printed("openraft_log"), expected);
}
