//! The deliberate bugs of this folder, and who finds each: docs/testing.md, "The zoo".

use super::crashes::cut_at_each_operation;
use super::damage::put_chunks_elsewhere;
use crate::mutant::{self, Mutant};

/// The bug, who finds it, and what that says.
type Finder = (Mutant, fn() -> usize, &'static str);

/// Each finder is content without the bug: it is a test of its own.
const FINDERS: [Finder; 4] = [
    (Mutant::SnapshotManifestBeforeChunks, cut_at_each_operation, "Damaged(Length"),
    (Mutant::SnapshotRenamedBeforeFlush, cut_at_each_operation, "Damaged(Manifest)"),
    (Mutant::NoDirectoryFsync, cut_at_each_operation, "operation 0"),
    (Mutant::ChecksumWithoutPlace, put_chunks_elsewhere, "in the place of"),
];

#[test]
fn every_bug_is_found() {
    for (bug, find, said) in FINDERS {
        let found = std::panic::catch_unwind(|| mutant::with(bug, find));
        let Err(panic) = found else { panic!("{bug:?} is not found") };
        let message = panic.downcast_ref::<String>().map_or_else(String::new, Clone::clone);
        println!("{}: {message}", bug.name());
        assert!(message.contains(said), "{bug:?}: {message}");
    }
}
