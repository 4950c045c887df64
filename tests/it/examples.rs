//! The examples, run as a newcomer runs them, and what they print.

use std::path::PathBuf;
use std::process::Command;

/// The example's program, built beside this test by `cargo test`.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own program");
    let profile = test.ancestors().nth(2).expect("it lies in target/PROFILE/deps");
    profile.join("examples").join(name)
}

#[test]
fn embed_log_appends_and_comes_back() {
    let home = tempfile::tempdir().expect("a directory can be made");
    let output = Command::new(example("embed_log")).arg(home.path().join("log")).output().expect(
        "the example is built: `cargo test` builds it, and `cargo test --test it` needs `cargo build --examples` before",
    );
    assert!(output.status.success(), "{output:?}");
    let expected = "a new log\n\
                    durable at index 1\n\
                    durable up to index 1001\n\
                    a batch of 2 records\n\
                    opened again: entries 1 to 1003\n\
                    1002: debit\n\
                    1003: credit\n";
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
}
