//! The examples, run as a newcomer runs them, and what they print.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

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
    assert_eq!(printed("follow_log"), "the follower holds 9999 records, the last is \"the end\"\n");
}

#[test]
fn redo_log_comes_back_after_a_crash() {
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

#[cfg(feature = "openraft")]
#[test]
fn openraft_log_votes_and_comes_back() {
    let expected = "vote T2-N1:uncommitted, committed T2-N1-2\n\
                    purged T1-N1-0\n\
                    T1-N1-1: two\n\
                    T2-N1-2: three\n";
    assert_eq!(printed("openraft_log"), expected);
}
