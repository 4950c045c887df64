//! openraft's public storage suite, on a disk that takes its time.

use std::sync::{Arc, OnceLock};

use openraft::StorageError;
use openraft::testing::{StoreBuilder, Suite};
use tempfile::TempDir;

use super::Types;
use super::durable::open_slow;
use super::machine::Memory;
use super::recorder::{Call, Recorder, Recording};
use crate::adapters::openraft::LogStorage;

struct Builder(Recording);

impl StoreBuilder<Types, Recorder, Memory, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, Recorder, Memory), StorageError<u64>> {
        let home = tempfile::tempdir().unwrap();
        let log = LogStorage::open(Arc::new(open_slow(&home)), 3).unwrap();
        Ok((home, Recorder::new(log, &self.0), Memory::default()))
    }
}

/// The suite's calls, storage by storage: the suite runs once for all who ask.
pub fn recording() -> &'static [Vec<Call>] {
    static RUNS: OnceLock<Vec<Vec<Call>>> = OnceLock::new();
    RUNS.get_or_init(|| {
        let recording = Recording::default();
        Suite::test_all(Builder(Arc::clone(&recording))).unwrap();
        let runs = recording.lock().unwrap();
        runs.iter().filter(|run| !run.is_empty()).cloned().collect()
    })
}

/// Every part of it passes, and nothing is told before it is durable.
#[test]
fn the_suite_of_openraft_passes() {
    let runs = recording();
    let calls: usize = runs.iter().map(Vec::len).sum();
    println!("{} storages with {calls} calls", runs.len());
    assert!(runs.len() >= 25 && calls >= 265, "{} storages with {calls} calls: what was recorded?", runs.len());
}
