//! What a unit test says when this machine lacks what it needs.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

/// Said already: many tests lack the same thing.
static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Says, once, that something cannot run here: on standard error itself, since what goes through the macros is shown of
/// tests that fail alone, and where `TRILITH_SKIPS_FILE` says.
pub fn skipped(what: &str, reason: &str) {
    let line = line(what, reason);
    if !SAID.lock().unwrap_or_else(PoisonError::into_inner).insert(line.clone()) {
        return;
    }
    std::io::stderr().write_all(line.as_bytes()).expect("standard error takes a line");
    if let Some(file) = std::env::var_os("TRILITH_SKIPS_FILE") {
        let mut file = std::fs::File::options().append(true).create(true).open(file).expect("the file of skips");
        file.write_all(line.as_bytes()).expect("the file of skips can be written");
    }
}

/// As `.ci/run` reads it.
fn line(what: &str, reason: &str) -> String {
    format!("SKIPPED {what}: {}\n", reason.replace('\n', " "))
}

#[test]
fn a_skip_is_one_line() {
    assert_eq!(line("a on b", "no\nb"), "SKIPPED a on b: no b\n");
}
