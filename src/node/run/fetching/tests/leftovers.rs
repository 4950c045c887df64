//! What stands in the directory already, what others do in it meanwhile, and room that is not for snapshots.

use super::*;
use crate::disk::Files;
use crate::sim::disk::SimDisk;

/// A node whose state at the point is another one.
fn another(node: &Node, index: u64) -> Manifest {
    let (sessions, map) = state(index + 1);
    let source = Box::new(Checkpoint::of(&sessions, &map).unwrap());
    let mut builder = Builder::with_chunks(description(index), source, CHUNK_BYTES);
    while builder.step(&node.files, true).unwrap() != Step::Done {}
    node.has(index).expect("it was made")
}

fn received(node: &Node, manifest: &Manifest) -> Vec<u8> {
    std::fs::read(node.home.path().join(format!("{}.receiving/chunks", manifest.description.name()))).unwrap()
}

/// A start later, or an order later: what has come is of the first one's state, and the others have another.
#[tokio::test]
async fn what_has_come_of_one_state_is_never_gone_on_with_by_another() {
    let [one, two, three] = nodes();
    let manifest = one.makes(20);
    let other = another(&three, 20);
    assert_eq!(manifest.difference(&manifest), "");
    assert!(manifest.difference(&other).contains("chunk"), "{}", manifest.difference(&other));
    let silent = crooked(&one, &manifest, falls_silent_after(7));
    let (fetching, results) = two.fetching(options());
    fetching.order(order(20, 1, &[]));
    until_here(&fetching, 7).await;
    assert!(silent.asked() >= 7);
    drop((fetching, results));
    let before = received(&two, &manifest);
    let _serving = three.serves();
    let (fetching, mut results) = two.fetching(options());
    fetching.order(order(20, 3, &[]));
    match told(&mut results).await.result {
        Err(FetchError::Nowhere { asked, .. }) => assert_eq!(asked.0, [(NodeId(3), Unfit::Another)]),
        other => panic!("it was taken: {other:?}"),
    }
    assert!(received(&two, &manifest) == before, "nothing was written over what has come");
    let honest = crooked(&one, &manifest, honest());
    fetching.order(order(20, 3, &[1]));
    check(&two, told(&mut results).await, 20);
    assert_eq!(honest.asked(), manifest.chunks() as usize - 7);
}

/// Its manifest is gone, or its chunks are too few: what is right of them is not sent again.
#[tokio::test]
async fn a_damaged_snapshot_stays_until_another_nodes_manifest_has_come_and_its_good_chunks_are_used() {
    for cut in [false, true] {
        let [one, two] = nodes();
        let manifest = one.makes(20);
        two.makes(20);
        two.rots(&manifest, 3);
        let path = two.home.path().join(manifest.description.name());
        let lost = match cut {
            false => {
                std::fs::write(path.join("manifest"), b"rotten").unwrap();
                vec![3]
            }
            true => {
                let file = std::fs::File::options().write(true).open(path.join("chunks")).unwrap();
                file.set_len(manifest.place(40).0).unwrap();
                [3].into_iter().chain(40..manifest.chunks()).collect()
            }
        };
        let (fetching, mut results) = two.fetching(options());
        fetching.order(order(20, 1, &[]));
        assert!(matches!(told(&mut results).await.result, Err(FetchError::Nowhere { .. })));
        assert_eq!(two.names(), [manifest.description.name()], "nobody has it: it stays");
        let honest = crooked(&one, &manifest, honest());
        fetching.order(order(20, 1, &[]));
        check(&two, told(&mut results).await, 20);
        assert_eq!((two.names(), &*honest.asked.lock().unwrap()), (vec![manifest.description.name()], &lost));
    }
}

/// The power goes at each operation of it: all of it comes later.
#[test]
fn a_damaged_snapshot_that_is_taken_up_again_is_never_whole_before_it_is() {
    let make = |disk: &SimDisk| {
        let (sessions, map) = state(20);
        let source = Box::new(Checkpoint::of(&sessions, &map).unwrap());
        let mut builder = Builder::with_chunks(description(20), source, CHUNK_BYTES);
        while builder.step(&disk.files(), true).unwrap() != Step::Done {}
        let listing = snapshot::list(&disk.files(), Some(CLUSTER)).unwrap();
        listing.whole(GROUP).next().unwrap().clone()
    };
    for operations in 0.. {
        let disk = SimDisk::new();
        let manifest = make(&disk);
        disk.truncate(&format!("{}/chunks", manifest.description.name()), manifest.place(40).0);
        disk.crash_at(disk.operations() + operations);
        let reopened = snapshot::reopen(&disk.files(), &manifest);
        if reopened.is_ok() {
            assert!(operations > 5);
            return;
        }
        disk.crash(&mut crate::random::Random::seeded(operations));
        let listing = snapshot::list(&disk.files(), Some(CLUSTER)).unwrap();
        assert!(listing.whole(GROUP).next().is_none(), "after {operations} operations");
    }
}

#[tokio::test]
async fn room_that_is_the_logs_is_not_taken() {
    let [one, two] = nodes();
    let manifest = one.makes(20);
    let _serving = one.serves();
    let (disk, peers) = (SimDisk::new(), two.endpoint.peers());
    let (files, control) = (disk.files(), Control::new(Arc::default()));
    let kept_free_bytes = 100_000;
    let options = FetchOptions { kept_free_bytes, ..options() };
    disk.set_capacity(manifest.bytes + kept_free_bytes - 1);
    let mut session = Session::new(&files, way::Way::Member(&peers), options, &control, 0);
    let error = session.fetch(order(20, 1, &[]), &mut None).await.map(|_| ()).unwrap_err();
    assert!(matches!(&error, FetchError::Snapshot(snapshot::Error::NoRoom { .. })), "{error}");
    assert!(error.next_step().contains("make room"));
    assert!(files.list("").unwrap().is_empty());
    // With room for both it comes.
    disk.set_capacity(manifest.bytes + 2 * kept_free_bytes);
    let mut session = Session::new(&files, way::Way::Member(&peers), options, &control, 0);
    session.fetch(order(20, 1, &[]), &mut None).await.unwrap();
}

/// Whoever removes what is superfluous holds the names meanwhile.
#[expect(clippy::await_holding_lock, reason = "the other thread is to wait for it")]
#[tokio::test]
async fn nothing_is_begun_or_ended_while_another_removes() {
    let [one, two] = nodes();
    let manifest = one.makes(20);
    let _serving = one.serves();
    let (fetching, mut results) = two.fetching(options());
    let names = fetching.names();
    let held = names.lock().unwrap();
    fetching.order(order(20, 1, &[]));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(two.names(), [""; 0]);
    drop(held);
    check(&two, told(&mut results).await, 20);
    // What was removed while it came is not whole, whatever comes then.
    let (new, slow) = (one.makes(30), FetchOptions { bytes_per_second: 500_000, ..options() });
    let (fetching, mut results) = two.fetching(slow);
    fetching.order(order(30, 1, &[]));
    until_here(&fetching, 5).await;
    {
        let names = fetching.names();
        let _held = names.lock().unwrap();
        snapshot::remove(&two.files, &format!("{}.receiving", new.description.name())).unwrap();
    }
    let fetched = told(&mut results).await;
    assert!(matches!(fetched.result, Err(FetchError::Snapshot(_))), "{:?}", fetched.result.map(|_| ()));
    assert_eq!(two.names(), [manifest.description.name()]);
}

/// As a start finds it: the first chunk that is bad shows that there is one.
#[tokio::test]
async fn a_snapshot_that_is_suspect_is_looked_through_and_mended() {
    let [one, two] = nodes();
    let manifest = one.makes(20);
    two.makes(20);
    [3, 17, 18].iter().for_each(|number| two.rots(&manifest, *number));
    let honest = crooked(&one, &manifest, honest());
    let (fetching, _results) = two.fetching(options());
    fetching.mender().is_suspect(&manifest);
    eventually("mended", || snapshot::verify(&two.files, &manifest).unwrap().is_empty()).await;
    assert_eq!(*honest.asked.lock().unwrap(), [3, 17, 18]);
}
