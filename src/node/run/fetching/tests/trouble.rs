//! Nodes that lie, lack, rot or say nothing, and a disk that is full.

use super::*;
use crate::random::Random;
use crate::sim::disk::SimDisk;

fn changed(bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    bytes[5] ^= 1;
    bytes.into()
}

/// Gives this chunk with one bit turned, or another one in its place.
fn bad_chunk(bad: u32) -> Box<Change> {
    Box::new(move |_, right| match right {
        SnapshotAnswer::Chunk { number, bytes } if number == bad => {
            Some(SnapshotAnswer::Chunk { number, bytes: changed(&bytes) })
        }
        right => Some(right),
    })
}

fn unfit(fetched: Fetched<Map>) -> Vec<(NodeId, Unfit)> {
    match fetched.result {
        Err(FetchError::Nowhere { asked, .. }) => asked.0,
        other => panic!("not nowhere: {other:?}"),
    }
}

#[tokio::test]
async fn a_chunk_that_one_node_gives_wrong_comes_from_another() {
    let [one, two, three] = nodes();
    let manifest = one.makes(20);
    three.makes(20);
    let _bad = crooked(&one, &manifest, bad_chunk(12));
    let good = crooked(&three, &manifest, honest());
    let (fetching, mut results) = two.fetching(options());
    fetching.order(order(20, 1, &[3]));
    check(&two, told(&mut results).await, 20);
    assert_eq!(*good.asked.lock().unwrap(), [12], "the others were right");
}

#[tokio::test]
async fn where_nobody_has_a_chunk_as_it_was_that_is_told_with_who_was_asked() {
    let [one, two, three] = nodes();
    let manifest = one.makes(20);
    three.makes(20);
    let _one = crooked(&one, &manifest, bad_chunk(12));
    let _three = crooked(&three, &manifest, bad_chunk(12));
    let (fetching, mut results) = two.fetching(options());
    fetching.order(order(20, 1, &[3]));
    let fetched = told(&mut results).await;
    let error = fetched.result.as_ref().unwrap_err();
    assert!(error.to_string().contains("node 3 has chunk 12 damaged") && !error.next_step().is_empty(), "{error}");
    assert_eq!(unfit(fetched), [1, 3].map(|id| (NodeId(id), Unfit::Damaged { number: 12 })));
    assert_eq!(two.has(20), None);
    // Somebody has it after all: one chunk is missing.
    let good = crooked(&three, &manifest, honest());
    fetching.order(order(20, 1, &[3]));
    check(&two, told(&mut results).await, 20);
    assert_eq!(*good.asked.lock().unwrap(), [12]);
}

/// End to end: the server reads, finds the rot, refuses, and has the chunk back from the third node.
#[tokio::test]
async fn a_chunk_that_rotted_at_the_server_comes_from_another_node_and_is_put_back_there() {
    let [one, two, three] = nodes();
    let manifest = one.makes(20);
    three.makes(20);
    one.rots(&manifest, 7);
    let _one = crate::node::run::exchange::Exchange::<Map>::start(
        &one.files,
        &one.endpoint,
        FetchOptions::new(CLUSTER),
        &std::sync::Arc::default(),
    )
    .unwrap();
    let _three = three.serves();
    let (fetching, mut results) = two.fetching(options());
    fetching.order(order(20, 1, &[3]));
    check(&two, told(&mut results).await, 20);
    eventually("put back", || snapshot::verify(&one.files, &manifest).unwrap().is_empty()).await;
    // From now on it gives all of it.
    three.endpoint.peers().answer_snapshots(None);
    snapshot::remove(&two.files, &manifest.description.name()).unwrap();
    fetching.order(order(20, 1, &[]));
    check(&two, told(&mut results).await, 20);
}

#[tokio::test]
async fn a_chunk_that_rotted_here_is_put_back_when_the_state_is_read() {
    let [one, two] = nodes();
    let manifest = one.makes(20);
    let honest = crooked(&one, &manifest, honest());
    assert_eq!(two.makes(20), manifest);
    two.rots(&manifest, 3);
    two.rots(&manifest, 9);
    let (fetching, mut results) = two.fetching(options());
    fetching.order(order(20, 1, &[]));
    check(&two, told(&mut results).await, 20);
    assert_eq!(*honest.asked.lock().unwrap(), [3, 9]);
}

/// An order comes between: the chunk is put back after it.
#[tokio::test]
async fn a_rotten_chunk_waits_for_an_order_and_is_not_forgotten() {
    let [one, two, three] = nodes();
    let old = one.makes(20);
    let silent = crooked(&one, &old, falls_silent_after(0));
    let new = three.makes(30);
    assert_eq!((two.makes(20), three.makes(20)), (old.clone(), old.clone()));
    two.rots(&old, 4);
    let (fetching, mut results) = two.fetching(options());
    fetching.mender().is_rotten(&old, 4);
    eventually("it is asked for", || silent.asked() > 0).await;
    let _three = three.serves();
    fetching.order(order(30, 3, &[]));
    check(&two, told(&mut results).await, 30);
    one.endpoint.close().await;
    eventually("put back", || snapshot::verify(&two.files, &old).unwrap().is_empty()).await;
    assert_eq!(two.has(30), Some(new));
}

/// A snapshot that is damaged as a whole is not in the way of the same one.
#[tokio::test]
async fn a_snapshot_without_a_manifest_that_reads_is_fetched_anew() {
    let [one, two] = nodes();
    one.makes(20);
    let manifest = two.makes(20);
    let name = manifest.description.name();
    std::fs::write(two.home.path().join(&name).join("manifest"), b"TRISNAPS and then nothing").unwrap();
    let _serving = one.serves();
    let (fetching, mut results) = two.fetching(options());
    fetching.order(order(20, 1, &[]));
    check(&two, told(&mut results).await, 20);
    assert_eq!(two.names(), [name]);
}

#[tokio::test]
async fn nodes_that_have_no_such_snapshot_or_another_state_are_not_asked_again() {
    let [one, two, three] = nodes();
    let manifest = one.makes(20);
    let _one = one.serves();
    let (fetching, mut results) = two.fetching(options());
    // Of another point; nobody has that.
    let begun = Instant::now();
    fetching.order(order(25, 1, &[3]));
    assert_eq!(unfit(told(&mut results).await), [1, 3].map(|id| (NodeId(id), Unfit::NotHere)));
    assert!(begun.elapsed() < Duration::from_secs(5), "nothing is to be waited for");
    fetching.order(Order { from: NodeId(2), others: vec![], ..order(25, 1, &[]) });
    let fetched = told(&mut results).await;
    assert!(fetched.result.is_err(), "it does not ask itself");
    // The first one gives a part, and the other one has another state there.
    three.makes(20);
    let _first = crooked(&one, &manifest, bad_chunk(2));
    let mut other = manifest.clone();
    other.description.log_digest = Checksum(6);
    let _other = crooked(&three, &manifest, {
        let encoded = Bytes::from(other.encode());
        Box::new(move |request, right| match request {
            SnapshotRequest::Manifest { .. } => Some(SnapshotAnswer::Manifest(encoded.clone())),
            SnapshotRequest::Chunk { .. } => Some(right),
        })
    });
    fetching.order(order(20, 1, &[3]));
    let expected = [(NodeId(1), Unfit::Damaged { number: 2 }), (NodeId(3), Unfit::Another)];
    assert_eq!(unfit(told(&mut results).await), expected);
}

#[tokio::test]
async fn a_manifest_that_is_none_or_of_something_else_is_refused_before_anything_is_written() {
    let [one, two] = nodes();
    let manifest = one.makes(20);
    let (mut foreign, mut elsewhere) = (manifest.clone(), manifest.clone());
    foreign.description.cluster = ClusterId(0xc2);
    elsewhere.description.point = point(21);
    let mut torn = manifest.encode();
    torn.truncate(80);
    for wrong in [foreign.encode(), elsewhere.encode(), torn, Vec::new()] {
        let wrong = Bytes::from(wrong);
        let _crooked = crooked(&one, &manifest, {
            Box::new(move |request, right| match request {
                SnapshotRequest::Manifest { .. } => Some(SnapshotAnswer::Manifest(wrong.clone())),
                SnapshotRequest::Chunk { .. } => Some(right),
            })
        });
        let (fetching, mut results) = two.fetching(options());
        fetching.order(order(20, 1, &[]));
        let asked = unfit(told(&mut results).await);
        assert!(matches!(asked[..], [(NodeId(1), Unfit::Manifest(_))]), "{asked:?}");
        assert_eq!(two.names(), Vec::<String>::new());
    }
}

/// Busy, silent, or answering something else: it is asked again, in turn with the others, and given up in the end.
#[tokio::test]
async fn who_is_away_is_asked_again_until_patience_ends() {
    let [one, two, three] = nodes();
    let manifest = one.makes(20);
    let refusals = AtomicU64::new(0);
    let busy = crooked(
        &one,
        &manifest,
        Box::new(move |_, right| match refusals.fetch_add(1, Ordering::Relaxed) < 3 {
            true => Some(SnapshotAnswer::Refused(SnapshotRefusal::Busy)),
            false => Some(right),
        }),
    );
    let (fetching, mut results) = two.fetching(options());
    fetching.order(order(20, 1, &[]));
    check(&two, told(&mut results).await, 20);
    assert_eq!(busy.asked(), manifest.chunks() as usize);
    // Silence: another one is asked.
    let (manifest, hasty) = (one.makes(30), Duration::from_millis(200));
    three.makes(30);
    let silent = crooked(&one, &manifest, falls_silent_after(0));
    let _three = three.serves();
    let impatient = FetchOptions { answer_timeout: hasty, patience: Duration::from_millis(700), ..options() };
    drop(fetching);
    let (fetching, mut results) = two.fetching(impatient);
    fetching.order(order(30, 1, &[3]));
    check(&two, told(&mut results).await, 30);
    assert!(silent.asked() > 0);
    // And where there is none it ends.
    let manifest = one.makes(40);
    let _silent = crooked(&one, &manifest, falls_silent_after(6));
    fetching.order(order(40, 1, &[]));
    let error = told(&mut results).await.result.unwrap_err();
    assert!(matches!(error, FetchError::Stuck { .. }) && error.to_string().contains("no answer within"), "{error}");
    let honest = crooked(&one, &manifest, honest());
    fetching.order(order(40, 1, &[]));
    check(&two, told(&mut results).await, 40);
    assert_eq!(honest.asked(), manifest.chunks() as usize - 6, "what had come stayed");
}

/// On a simulated disk: nothing is left of what has no room, and it comes once there is.
#[tokio::test]
async fn a_full_disk_is_told_and_leaves_nothing_behind() {
    let [one, two] = nodes();
    let manifest = one.makes(20);
    let _serving = one.serves();
    let (disk, peers) = (SimDisk::new(), two.endpoint.peers());
    let (files, control) = (disk.files(), Control::new(Arc::default()));
    for room in [0, 1000, manifest.bytes / 2, manifest.bytes] {
        disk.set_capacity(room);
        let fetched = Session::new(&files, way::Way::Member(&peers), options(), &control, 0)
            .fetch(order(20, 1, &[]), &mut None)
            .await;
        let error = fetched.map(|_| ()).unwrap_err();
        assert!(matches!(&error, FetchError::Snapshot(source) if source.is_no_space()), "{error}");
        assert!(error.next_step().contains("make room"));
        assert!(crate::disk::Files::list(&files, "").unwrap().is_empty());
    }
    disk.set_capacity(1 << 30);
    let (_, _, map) = Session::new(&files, way::Way::Member(&peers), options(), &control, 0)
        .fetch(order(20, 1, &[]), &mut None)
        .await
        .unwrap();
    assert_eq!(map.digest(), state(20).1.digest());
}

/// Answers that go wrong in any way, at any time.
fn moody(seed: u64) -> Box<Change> {
    let random = Mutex::new(Random::seeded(seed));
    Box::new(move |_, right| {
        let (mood, number) = {
            let mut random = random.lock().unwrap();
            (random.below(60), random.below(60) as u32)
        };
        match (mood, right) {
            (0, _) => None,
            (1, _) => Some(SnapshotAnswer::Refused(SnapshotRefusal::Busy)),
            (2, _) => Some(SnapshotAnswer::Refused(SnapshotRefusal::Damaged { number })),
            (3, _) => Some(SnapshotAnswer::Chunk { number, bytes: Bytes::from_static(b"nothing") }),
            (4, SnapshotAnswer::Chunk { number, .. }) => {
                Some(SnapshotAnswer::Refused(SnapshotRefusal::Damaged { number }))
            }
            (5, SnapshotAnswer::Chunk { number, bytes }) => {
                Some(SnapshotAnswer::Chunk { number, bytes: changed(&bytes) })
            }
            (_, right) => Some(right),
        }
    })
}

/// Three nodes with moods, one that is honest, orders that are cancelled and given again, and starts: the state that is told
/// at last is the right one, each time.
#[tokio::test]
async fn whatever_goes_wrong_on_the_way_what_is_told_is_the_state() {
    let [one, two, three, four, five] = nodes();
    let others = [&one, &three, &four, &five];
    for seed in 1..=12 {
        let mut random = Random::seeded(seed);
        let index = 20 + seed;
        for (place, node) in others.iter().enumerate() {
            let manifest = node.makes(index);
            let change = if place == 3 { honest() } else { moody(seed * 10 + place as u64) };
            crooked(node, &manifest, change);
        }
        let hasty = FetchOptions { answer_timeout: Duration::from_millis(100), ..options() };
        for _ in 0..random.below(3) {
            let (fetching, _results) = two.fetching(hasty);
            fetching.order(order(index, 1, &[3, 4, 5]));
            tokio::time::sleep(Duration::from_millis(random.below(60))).await;
            if random.below(2) == 0 {
                fetching.cancel();
                fetching.order(order(index, 4, &[1, 3, 5]));
                tokio::time::sleep(Duration::from_millis(random.below(60))).await;
            }
        }
        let (fetching, mut results) = two.fetching(hasty);
        fetching.order(order(index, 1, &[3, 4, 5]));
        check(&two, told(&mut results).await, index);
        drop(fetching);
        let whole = two.names();
        assert!(whole.iter().all(|name| !name.contains('.')), "seed {seed}: {whole:?}");
    }
}
