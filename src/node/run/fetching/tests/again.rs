//! What is tried again: fetches that came to nothing, and chunks that nobody had.

use std::cell::Cell;
use std::rc::Rc;

use super::*;
use crate::node::run::fetching::mending::MENDS_TRIED_MAX;
use crate::sim::disk::{Act, SimDisk};

/// Who is silent is soon given up.
fn hasty() -> FetchOptions {
    let (answer_timeout, patience) = (Duration::from_millis(200), Duration::from_millis(300));
    FetchOptions { answer_timeout, patience, ..options() }
}

/// Reads of what has come of a snapshot that is not whole.
fn reads_of_received(disk: &SimDisk) -> Rc<Cell<u64>> {
    let reads = Rc::new(Cell::new(0));
    let count = reads.clone();
    disk.observe(move |event| {
        let is_one = event.act == Act::Read && event.name.ends_with(".receiving/chunks");
        count.set(count.get() + u64::from(is_one));
    });
    reads
}

#[tokio::test]
async fn what_has_come_is_read_once_however_often_the_rest_is_asked_for() {
    let [one, two] = nodes();
    let manifest = one.makes(20);
    let (disk, peers) = (SimDisk::new(), two.endpoint.peers());
    let (files, control, reads) = (disk.files(), Control::new(Arc::default()), reads_of_received(&disk));
    let session = || Session::new(&files, way::Way::Member(&peers), hasty(), &control, 0);
    let mut kept = None;
    // Each time it falls silent after some more.
    for round in 1..=4 {
        let _silent = crooked(&one, &manifest, falls_silent_after(5));
        let error = session().fetch(order(20, 1, &[]), &mut kept).await.map(|_| ()).unwrap_err();
        assert!(matches!(error, FetchError::Stuck { .. }), "{error}");
        let missing = kept.as_ref().map(|receiver| receiver.missing_count());
        assert!(missing.is_some_and(|missing| missing <= manifest.chunks() - 5 * round), "{missing:?}");
    }
    assert_eq!(reads.get(), 0, "it is known what has come");
    // Another start knows nothing, and reads each chunk once: what is not there, too.
    kept.take().unwrap().put_down(&files);
    for _ in 0..3 {
        let _silent = crooked(&one, &manifest, falls_silent_after(0));
        session().fetch(order(20, 1, &[]), &mut kept).await.map(|_| ()).unwrap_err();
    }
    assert_eq!(reads.get(), u64::from(manifest.chunks()));
    let honest = crooked(&one, &manifest, honest());
    session().fetch(order(20, 1, &[]), &mut kept).await.map(|_| ()).unwrap();
    assert_eq!((reads.get(), kept.is_none()), (u64::from(manifest.chunks()), true));
    assert!(honest.asked() <= manifest.chunks() as usize - 20, "what had come is not asked for");
}

/// Before anybody is asked: a node that answers is not kept waiting for it.
#[tokio::test]
async fn what_has_come_is_looked_at_before_anybody_answers() {
    let [one, two] = nodes();
    let manifest = one.makes(20);
    let _silent = crooked(&one, &manifest, falls_silent_after(9));
    let (fetching, results) = two.fetching(options());
    fetching.order(order(20, 1, &[]));
    until_here(&fetching, 9).await;
    drop((fetching, results));
    one.endpoint.close().await;
    let (fetching, _results) = two.fetching(options());
    fetching.order(order(20, 1, &[]));
    until_here(&fetching, 9).await;
    let progress = fetching.progress().unwrap();
    assert_eq!((progress.bytes, progress.bytes_resumed), (manifest.bytes, progress.bytes_here));
}

/// Of what stayed open, too, it is told how much an earlier fetch has brought: all of it, not what the first one had found.
#[tokio::test]
async fn what_earlier_fetches_brought_is_told_of_what_stayed_open() {
    let [one, two] = nodes();
    let manifest = one.makes(20);
    let (disk, peers) = (SimDisk::new(), two.endpoint.peers());
    let (files, control) = (disk.files(), Control::new(Arc::default()));
    let mut kept = None;
    for (brought, resumed) in [(5, 0), (7, 5), (0, 12)] {
        let _silent = crooked(&one, &manifest, falls_silent_after(brought));
        let mut session = Session::new(&files, way::Way::Member(&peers), hasty(), &control, 0);
        session.fetch(order(20, 1, &[]), &mut kept).await.map(|_| ()).unwrap_err();
        let progress = control.progress().expect("something is fetched");
        let bytes = |chunks: u64| chunks * CHUNK_BYTES as u64;
        assert_eq!((progress.bytes_resumed, progress.bytes_here), (bytes(resumed), bytes(resumed + brought)));
    }
}

/// What is kept open is of no use for another snapshot, nor where it was removed.
#[tokio::test]
async fn what_was_kept_is_given_up_for_another_and_where_it_is_gone() {
    let [one, two] = nodes();
    let (old, new) = (one.makes(20), one.makes(30));
    let (disk, peers) = (SimDisk::new(), two.endpoint.peers());
    let (files, control) = (disk.files(), Control::new(Arc::default()));
    let session = || Session::new(&files, way::Way::Member(&peers), hasty(), &control, 0);
    let names = || crate::disk::Files::list(&files, "").unwrap();
    let (mut kept, receiving) = (None, format!("{}.receiving", old.description.name()));
    for is_removed in [true, false] {
        let _silent = crooked(&one, &old, falls_silent_after(5));
        session().fetch(order(20, 1, &[]), &mut kept).await.map(|_| ()).unwrap_err();
        assert!(kept.is_some() && names() == [receiving.as_str()]);
        let (wanted, index) = if is_removed { (&old, 20) } else { (&new, 30) };
        if is_removed {
            snapshot::remove(&files, &receiving).unwrap();
        }
        let _honest = crooked(&one, wanted, honest());
        let (_, _, map) = session().fetch(order(index, 1, &[]), &mut kept).await.unwrap();
        assert_eq!((map.digest(), kept.is_none()), (state(index).1.digest(), true));
        assert_eq!(names(), [wanted.description.name()]);
        snapshot::remove(&files, &wanted.description.name()).unwrap();
    }
}

/// Chunks that came, whatever they were.
fn received(fetching: &Fetching<Map>) -> u32 {
    fetching.shared.control.chunks_received.load(Ordering::Relaxed).try_into().expect("few")
}

fn impatient() -> FetchOptions {
    FetchOptions { mend_pause: Duration::from_millis(1), ..options() }
}

/// The others make the same snapshot later. Meanwhile what somebody has is put back.
#[tokio::test]
async fn a_rotten_chunk_that_nobody_has_yet_is_asked_for_again_behind_the_others() {
    let [one, two, three] = nodes();
    let (early, late) = (two.makes(20), two.makes(30));
    one.makes(20);
    two.rots(&late, 6);
    two.rots(&early, 4);
    let (_one, _three) = (one.serves(), three.serves());
    let (fetching, _results) = two.fetching(FetchOptions { mend_pause: Duration::from_millis(100), ..options() });
    fetching.mender().is_rotten(&late, 6);
    fetching.mender().is_rotten(&early, 4);
    let is_right = |manifest: &Manifest| snapshot::verify(&two.files, manifest).unwrap().is_empty();
    eventually("what somebody has is put back", || is_right(&early)).await;
    assert!(!is_right(&late));
    three.makes(30);
    eventually("what somebody has at last is put back", || is_right(&late)).await;
}

/// For some minutes, and not for ever.
#[tokio::test]
async fn a_rotten_chunk_that_nobody_ever_has_is_given_up_after_a_while() {
    let [one, two] = nodes();
    let manifest = two.makes(20);
    let other = one.makes(30);
    two.rots(&manifest, 4);
    let asked = Arc::new(AtomicU64::new(0));
    let count = asked.clone();
    let _nothing = crooked(
        &one,
        &other,
        Box::new(move |_, _| {
            count.fetch_add(1, Ordering::Relaxed);
            Some(SnapshotAnswer::Refused(SnapshotRefusal::NotHere))
        }),
    );
    let (fetching, _results) = two.fetching(impatient());
    fetching.mender().is_rotten(&manifest, 4);
    let tries = u64::from(MENDS_TRIED_MAX);
    eventually("it was asked for often", || asked.load(Ordering::Relaxed) >= tries).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(asked.load(Ordering::Relaxed), tries);
    // Where the snapshot itself is gone nobody is asked.
    snapshot::remove(&two.files, &manifest.description.name()).unwrap();
    fetching.mender().is_rotten(&manifest, 4);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(asked.load(Ordering::Relaxed), tries);
}

/// It is told when every chunk is right, and not before.
#[tokio::test]
async fn that_a_suspect_is_whole_again_is_told_once_all_of_it_is() {
    let [one, two] = nodes();
    let manifest = one.makes(20);
    two.makes(20);
    two.rots(&manifest, 3);
    two.rots(&manifest, 30);
    let _silent = crooked(&one, &manifest, falls_silent_after(1));
    let (sender, mut mended) = unbounded_channel();
    let tell = move |told: Told<Map>| drop(sender.send(told));
    let hasty = FetchOptions { mend_pause: Duration::from_millis(1), ..hasty() };
    let fetching = Fetching::start(two.files.clone(), two.endpoint.peers(), hasty, tell).unwrap();
    fetching.mender().is_suspect(&manifest);
    let damages = || snapshot::verify(&two.files, &manifest).unwrap().len();
    eventually("the first is put back", || damages() == 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(mended.is_empty(), "one is still rotten");
    let _honest = crooked(&one, &manifest, honest());
    let told = tokio::time::timeout(Duration::from_secs(20), mended.recv()).await.expect("in time");
    assert!(matches!(told, Some(Told::Mended { point: found }) if found == point(20)), "{told:?}");
    assert_eq!(damages(), 0);
}

/// Another leads, and has it: what had come is not sent again, and it knows of it.
#[tokio::test]
async fn another_leader_is_asked_at_once_and_what_has_come_stays() {
    let [one, two, three] = nodes();
    let manifest = one.makes(20);
    three.makes(20);
    let silent = crooked(&one, &manifest, falls_silent_after(10));
    let (_three, asked) = (three.serves(), three.endpoint.peers());
    asked.wake_when_snapshots_are_asked_for(Arc::default());
    let (fetching, mut results) = two.fetching(options());
    fetching.order(order(20, 1, &[3]));
    until_here(&fetching, 10).await;
    // Who is asked does not answer, and would be waited for.
    fetching.order(Order { term: Term(4), ..order(20, 3, &[1]) });
    let begun = Instant::now();
    check(&two, told(&mut results).await, 20);
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(received(&fetching), manifest.chunks(), "each has come once");
    assert_eq!(Vec::from_iter(asked.take_snapshots_asked_for()), [(NodeId(2), point(20))]);
    assert!(silent.asked() <= 14, "it is asked for nothing again");
}

/// Who leads learns of a snapshot of which nothing is missing here, too, and need not answer.
#[tokio::test]
async fn another_leader_learns_of_what_is_being_read() {
    let [one, two, three] = nodes();
    one.makes(20);
    let _one = one.serves();
    let (asked, (silent, _unanswered)) = (three.endpoint.peers(), channel());
    asked.answer_snapshots(Some(silent));
    asked.wake_when_snapshots_are_asked_for(Arc::default());
    let known = || Vec::from_iter(asked.take_snapshots_asked_for());
    let (peers, control) = (two.endpoint.peers(), Control::new(Arc::default()));
    let options = FetchOptions { answer_timeout: Duration::from_secs(1), ..options() };
    let mut session = Session::new(&two.files, way::Way::Member(&peers), options, &control, 0);
    let mut kept = None;
    session.fetch(order(20, 1, &[3]), &mut kept).await.unwrap();
    assert_eq!((known(), *control.untold()), (vec![], None), "who gave it knows of it");
    let (_, _, map) = session.fetch(order(20, 3, &[1]), &mut kept).await.unwrap();
    assert_eq!((map.digest(), known()), (state(20).1.digest(), vec![(NodeId(2), point(20))]));
}

/// Another leads meanwhile: what is read goes on.
#[tokio::test]
async fn another_leader_is_to_be_told_and_nothing_is_read_anew() {
    let [one, two] = nodes();
    let manifest = one.makes(20);
    let _silent = crooked(&one, &manifest, falls_silent_after(10));
    let (fetching, _results) = two.fetching(options());
    fetching.order(order(20, 1, &[3]));
    until_here(&fetching, 10).await;
    let control = &fetching.shared.control;
    let generation = || control.generation.load(Ordering::Relaxed);
    let before = (generation(), *control.untold());
    // As if all of it were.
    control.progress().as_mut().expect("it is under way").bytes_here = manifest.bytes;
    fetching.order(Order { term: Term(4), ..order(20, 3, &[1]) });
    assert_eq!((before, generation(), *control.untold()), ((generation(), None), before.0, Some(NodeId(3))));
}

/// Another leads, and has none: who has it and is reached goes on with it, and where nobody is nobody is waited for.
#[tokio::test]
async fn what_another_leader_lacks_comes_from_who_has_it_or_is_given_up_at_once() {
    let [one, two, three] = nodes();
    let manifest = one.makes(20);
    let _silent = crooked(&one, &manifest, falls_silent_after(10));
    let _three = three.serves();
    let (fetching, mut results) =
        two.fetching(FetchOptions { answer_timeout: Duration::from_millis(300), ..options() });
    fetching.order(order(20, 1, &[3]));
    until_here(&fetching, 10).await;
    let _busy = crooked(&one, &manifest, {
        let refusals = AtomicU64::new(0);
        Box::new(move |_, right| match refusals.fetch_add(1, Ordering::Relaxed) {
            0..3 => Some(SnapshotAnswer::Refused(SnapshotRefusal::Busy)),
            _ => Some(right),
        })
    });
    fetching.order(Order { term: Term(4), ..order(20, 3, &[1]) });
    check(&two, told(&mut results).await, 20);
    assert_eq!(received(&fetching), manifest.chunks(), "each has come once");
    let manifest = one.makes(30);
    let _silent = crooked(&one, &manifest, falls_silent_after(10));
    fetching.order(order(30, 1, &[3]));
    until_here(&fetching, 10).await;
    one.endpoint.close().await;
    let begun = Instant::now();
    fetching.order(Order { term: Term(5), ..order(30, 3, &[1]) });
    let error = told(&mut results).await.result.unwrap_err();
    assert!(matches!(error, FetchError::Left { .. }) && !error.goes_on(), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}
