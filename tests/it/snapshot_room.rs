//! A disk that is full when a snapshot is to be written, and one that becomes full in its middle: a small tmpfs.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use trilith::types::NodeId;

use crate::full_disk::Small;
use crate::member_waits::order;
use crate::processes::{PATIENCE, Trial, beside_few};
use crate::snapshot_kills::copy;
use crate::snapshots::{check, last, names, put, until, view};

const NODE: NodeId = NodeId(1);
const DISK_MIB: u64 = 256;

#[test]
fn a_snapshot_fails_on_a_full_disk_the_log_goes_on_and_the_next_one_succeeds_when_there_is_room() {
    let _share = beside_few();
    let mut trial = Trial::prepare(1, None);
    let at = trial.cluster.data_directory(NODE);
    let aside = at.with_extension("aside");
    fs::rename(&at, &aside).and_then(|()| fs::create_dir(&at)).expect("they can be put aside");
    let Some(_small) = Small::mounted_at("snapshot_room", &at, DISK_MIB) else { return };
    copy(&aside, &at);
    trial.cluster.configure("snapshot_bytes_per_second", 1 << 20).unwrap_or_else(|failure| panic!("{failure}"));
    trial.start_node(NODE);
    put(&trial, 0..8);

    // Full at the beginning: what the log needs is left to it.
    let filler = at.join("filler");
    fill(&filler, 4 << 20);
    let said = order(&trial, &["snapshot", "--timeout", "30"]);
    let text = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(!said.status.success() && text.contains("room"), "{text}");
    assert!(view(&trial, NODE).snapshots.failure.contains("free space"), "{:?}", view(&trial, NODE).snapshots);
    put(&trial, 8..9);
    assert_eq!(names(&trial, NODE), [""; 0]);

    // Full in its middle.
    fs::remove_file(&filler).expect("it is there");
    std::thread::scope(|scope| {
        let ordered = scope.spawn(|| order(&trial, &["snapshot", "--timeout", "30"]));
        until(&trial, NODE, |status| status.snapshots.making.is_some_and(|making| making.bytes > 0));
        fill(&filler, 0);
        let said = ordered.join().expect("it does not panic");
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(!said.status.success() && text.contains("No space left"), "{text}");
    });
    put(&trial, 9..10);
    assert_eq!(names(&trial, NODE), [""; 0], "nothing is left of it");
    check(&trial, 10);

    fs::remove_file(&filler).expect("it is there");
    let said = order(&trial, &["snapshot", "--timeout", "60"]);
    assert!(said.status.success(), "{said:?}");
    let made = last(&view(&trial, NODE));
    put(&trial, 10..11);
    trial.kill(NODE);
    trial.start_node(NODE);
    until(&trial, NODE, |status| last(status) == made && status.snapshots.failure.is_empty());
    check(&trial, 11);
    trial.cluster.stop_all(PATIENCE).unwrap_or_else(|failure| panic!("{failure}"));
}

/// Takes all room of a disk but so many bytes.
fn fill(filler: &Path, but_bytes: u64) {
    let mut file = File::create(filler).expect("it can be made");
    while file.write_all(&[1; 64 << 10]).is_ok() {}
    let length = file.metadata().expect("it is there").len();
    file.set_len(length.saturating_sub(but_bytes)).expect("it can be made shorter");
}
