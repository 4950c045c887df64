//! C7's share of one receiver: chunks in any order, bad ones, senders that change, and the power that goes at each
//! operation.

use super::crashes::each_crash;
use super::*;
use crate::sim::disk::{Code, Failure};

const CLUSTER: ClusterId = ClusterId(0xc1);

/// What a sender has: the manifest, and each chunk.
pub struct Sender {
    pub manifest: Manifest,
    pub chunks: Vec<Vec<u8>>,
}

pub fn sender(index: u64) -> Sender {
    let disk = with_snapshots(&[index]);
    let files = disk.files();
    let listing = list(&files, None).unwrap();
    let manifest = listing.whole(GROUP).next().unwrap().clone();
    let mut reader = Reader::open(&files, manifest.clone()).unwrap();
    let chunks = (0..manifest.chunks()).map(|number| reader.chunk(&files, number).unwrap().to_vec()).collect();
    Sender { manifest, chunks }
}

fn open(disk: &SimDisk, sender: &Sender) -> Result<Receiver, Error> {
    Receiver::open(&disk.files(), sender.manifest.clone(), CLUSTER)
}

/// Sends what is missing, and finishes. Tells how many chunks were sent.
pub fn receive(disk: &SimDisk, sender: &Sender) -> Result<usize, Error> {
    let mut receiver = open(disk, sender)?;
    let missing: Vec<u32> = receiver.missing().collect();
    for number in &missing {
        let arrival = receiver.take(&disk.files(), *number, &sender.chunks[*number as usize])?;
        assert_eq!(arrival, Arrival::New);
    }
    receiver.finish(&disk.files())?;
    Ok(missing.len())
}

#[test]
fn chunks_come_in_any_order_and_bad_ones_are_told() {
    let (disk, sender, other) = (with_snapshots(&[10]), sender(20), sender(27));
    let files = disk.files();
    let mut receiver = open(&disk, &sender).unwrap();
    let last = sender.manifest.chunks() - 1;
    assert_eq!(receiver.missing().collect::<Vec<_>>(), (0..=last).collect::<Vec<_>>());
    for number in (0..=last).rev() {
        let chunk = &sender.chunks[number as usize];
        let mut flipped = chunk.clone();
        flipped[7] ^= 1;
        let elsewhere = &sender.chunks[(number as usize + 1) % sender.chunks.len()];
        let others = &other.chunks[number as usize];
        for bad in [&flipped, elsewhere, others, &chunk[..chunk.len() - 1].to_vec(), &Vec::new()] {
            assert_eq!(receiver.take(&files, number, bad).unwrap(), Arrival::Bad);
        }
        assert_eq!(receiver.take(&files, number, chunk).unwrap(), Arrival::New);
        assert_eq!(receiver.take(&files, number, chunk).unwrap(), Arrival::Known);
        assert_eq!(receiver.missing_count(), number);
    }
    for number in [last + 1, u32::MAX] {
        assert_eq!(receiver.take(&files, number, &sender.chunks[0]).unwrap(), Arrival::Bad);
    }
    assert_eq!(whole(&disk), [10], "it has no name yet");
    receiver.finish(&files).unwrap();
    assert_eq!(whole(&disk), [10, 20]);
    let made = with_snapshots(&[20]);
    for file in ["manifest", "chunks"] {
        let name = format!("{}/{file}", description(20).name());
        assert_eq!(disk.contents(&name), made.contents(&name), "as if it had been made here");
    }
    assert!(matches!(open(&disk, &sender), Err(Error::Exists { .. })));
}

#[test]
fn what_has_arrived_is_not_asked_for_again() {
    for reads_past_cache in [true, false] {
        let (disk, sender) = (SimDisk::new(), sender(20));
        disk.set_reads_past_cache(reads_past_cache);
        let mut receiver = open(&disk, &sender).unwrap();
        receiver.take(&disk.files(), 1, &sender.chunks[1]).unwrap();
        receiver.close(&disk.files()).unwrap();
        disk.crash_with(&mut |_| 0);
        let receiver = open(&disk, &sender).unwrap();
        assert_eq!((receiver.resumed_count(), receiver.missing().collect::<Vec<_>>()), (1, vec![0, 2]));
        receiver.close(&disk.files()).unwrap();
        // What is rotten comes again.
        disk.flip_bit(&format!("{}.receiving/chunks", description(20).name()), 1500, 3);
        assert_eq!(receive(&disk, &sender).unwrap(), 3);
        disk.crash_with(&mut |_| 0);
        assert_eq!(whole(&disk), [20]);
    }
}

/// Whoever ends the node does not wait until all of it was looked at.
#[test]
fn what_is_not_wanted_any_more_is_not_looked_at_to_the_end() {
    let (disk, sender) = (SimDisk::new(), sender(20));
    let mut receiver = open(&disk, &sender).unwrap();
    receiver.take(&disk.files(), 1, &sender.chunks[1]).unwrap();
    receiver.close(&disk.files()).unwrap();
    let mut looks = 0;
    let opened = Receiver::open_while(&disk.files(), sender.manifest.clone(), CLUSTER, || {
        looks += 1;
        looks < 3
    });
    assert!(opened.unwrap().is_none() && looks == 3);
    assert_eq!(receive(&disk, &sender).unwrap(), 2, "what had come is there all the same");
}

/// At the same point only a state that was made otherwise has another manifest: nothing of it is used.
#[test]
fn what_came_of_another_manifest_is_removed() {
    let (disk, one) = (SimDisk::new(), sender(20));
    let mut receiver = open(&disk, &one).unwrap();
    receiver.take(&disk.files(), 0, &one.chunks[0]).unwrap();
    receiver.close(&disk.files()).unwrap();
    let mut other = sender(20);
    other.manifest.description.log_start = Index(2);
    let receiver = open(&disk, &other).unwrap();
    assert_eq!(receiver.missing_count(), other.manifest.chunks());
    receiver.abandon(&disk.files()).unwrap();
    assert!(disk.files().list("").unwrap().is_empty());
    let foreign = Receiver::open(&disk.files(), one.manifest.clone(), ClusterId(0xc2));
    assert!(matches!(foreign, Err(Error::WrongCluster { .. })));
    assert!(disk.files().list("").unwrap().is_empty(), "nothing of it touched the disk");
}

/// Whatever is wrong with what has come, it comes again.
#[test]
fn leftovers_that_make_no_sense_are_begun_anew() {
    let sender = sender(20);
    let name = format!("{}.receiving", description(20).name());
    for damage in 0..4 {
        let disk = SimDisk::new();
        open(&disk, &sender).unwrap().close(&disk.files()).unwrap();
        match damage {
            0 => disk.flip_bit(&format!("{name}/manifest"), 60, 0),
            1 => disk.lose(&format!("{name}/manifest")),
            2 => disk.lose(&format!("{name}/chunks")),
            _ => disk.truncate(&format!("{name}/chunks"), 5),
        }
        assert_eq!(receive(&disk, &sender).unwrap(), sender.chunks.len());
        assert_eq!(whole(&disk), [20]);
    }
}

/// The power goes at each operation: the older one stays, the new one is whole or has no name, and what had been flushed
/// is not sent again.
#[test]
fn a_cut_at_each_operation_of_receiving_loses_nothing() {
    let sender = sender(20);
    let (mut cuts, mut sent_again, mut spared) = (0, 0, 0);
    for operation in 0.. {
        let disk = with_snapshots(&[10]);
        disk.crash_at(disk.operations() + operation);
        let received = receive(&disk, &sender).is_ok();
        cuts += each_crash(&disk, operation, |disk| {
            let found = whole(disk);
            assert!(found == [10, 20] || (found == [10] && !received), "operation {operation}: {found:?}");
            settle(&disk.files()).unwrap();
            sweep(&disk.files()).unwrap();
            if found.len() == 1 {
                let sent = receive(disk, &sender).expect("nothing is wrong with the disk");
                sent_again += sent;
                spared += sender.chunks.len() - sent;
            }
            disk.crash_with(&mut |_| 0);
            assert_eq!(whole(disk), [10, 20], "operation {operation}");
            assert_eq!(disk.files().list("").unwrap().len(), 2, "nothing is left over");
        });
        if received {
            break;
        }
    }
    println!("{cuts} cuts, {sent_again} chunks sent, {spared} not sent again");
    assert!(cuts > 500 && spared > 100, "{cuts} {spared}");
}

#[test]
fn a_failure_of_each_operation_is_told_and_a_full_disk_before_the_first_chunk() {
    let sender = sender(20);
    for operation in 0.. {
        let disk = with_snapshots(&[10]);
        disk.fail_at(disk.operations() + operation, Failure::Partial { bytes: 100, error: Code::Io });
        let failed = receive(&disk, &sender).is_err();
        disk.clear_failures();
        disk.kill(&mut Random::seeded(operation));
        if failed {
            assert_eq!(whole(&disk), [10], "operation {operation}");
            receive(&disk, &sender).expect("nothing is wrong any more");
        }
        disk.crash_with(&mut |_| 0);
        assert_eq!(whole(&disk), [10, 20], "operation {operation}");
        if !failed {
            assert!(operation > 10, "{operation}");
            break;
        }
    }
    let disk = with_snapshots(&[10]);
    let used_bytes = disk.used_bytes();
    for room in (0..sender.manifest.bytes + sender.manifest.encode().len() as u64).step_by(37) {
        disk.set_capacity(used_bytes + room);
        assert!(open(&disk, &sender).is_err_and(|error| error.is_no_space()), "{room}");
        assert_eq!(disk.used_bytes(), used_bytes);
    }
    disk.set_capacity(1 << 40);
    receive(&disk, &sender).expect("there is room again");
}

/// Two programs, as two commands into one directory are.
#[test]
fn what_another_one_receives_just_now_is_left_alone() {
    let home = tempfile::tempdir().unwrap();
    let one = crate::disk::Directory::open(home.path()).unwrap();
    let other = crate::disk::Directory::open(home.path()).unwrap();
    let sender = sender(20);
    let mut receiver = Receiver::open(&one, sender.manifest.clone(), CLUSTER).unwrap();
    receiver.take(&one, 1, &sender.chunks[1]).unwrap();
    let refused = Receiver::open(&other, sender.manifest.clone(), CLUSTER);
    assert!(matches!(&refused, Err(Error::Disk(error)) if error.is_locked()), "{refused:?}");
    for number in [0, 2] {
        receiver.take(&one, number, &sender.chunks[number as usize]).unwrap();
    }
    let manifest = receiver.finish(&one).unwrap();
    assert!(verify(&other, &manifest).unwrap().is_empty());
}
