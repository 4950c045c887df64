//! The contract of files and queue, kept by the real ones and by the simulated one.

mod agreement;
mod buffers;
mod choices;
mod contract;
mod hangs;
mod hot_path;
mod mapping;
mod open_files;
mod proofs;
mod requests;

use std::time::Duration;

use contract::Rig;
use rustix::io::Errno;

use super::probe::FileSystem;
use super::seam::{Fault, Seam};
use super::*;
use crate::limits::{BLOCK_BYTES, DISK_OPERATION_AGE_MAX};
use crate::random::Random;
use crate::sim::disk::{SimDisk, SimFiles, SimQueue};
use crate::sim::skips::skipped;

/// Real files, and the thread.
struct BlockingRig {
    root: tempfile::TempDir,
    directory: Directory,
    queue: BlockingQueue,
    woken: std::sync::mpsc::Receiver<()>,
}

impl BlockingRig {
    fn with(mode: SyncMode, direct: bool, seam: Seam, age_max: Duration) -> BlockingRig {
        let root = scratch();
        let directory = if direct { Directory::open(root.path()) } else { Directory::open_plain(root.path()) };
        let directory = directory.expect("it was just made");
        let (wake, woken) = std::sync::mpsc::channel();
        let wake = Box::new(move || wake.send(()).unwrap_or(()));
        let queue = BlockingQueue::with_seam(directory.clone(), mode, wake, seam, age_max);
        BlockingRig { root, directory, queue: queue.expect("a thread can be had"), woken }
    }
}

impl Rig for BlockingRig {
    type Files = Directory;

    fn files(&self) -> &Directory {
        &self.directory
    }

    fn another(&self) -> Directory {
        Directory::open(self.root.path()).expect("it exists")
    }

    fn submit(&mut self, write: Write) {
        self.queue.submit(write);
    }

    fn take(&mut self) -> Option<Completion> {
        self.queue.take()
    }

    fn turn(&mut self) {
        // The wake is the only thing waited for: one that is missing shows as a test that takes for ever.
        let _ = self.woken.recv_timeout(Duration::from_secs(5));
    }
}

/// On the disk that the crate lies on, which unlike /tmp is rarely held in memory.
fn scratch() -> tempfile::TempDir {
    let target = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    tempfile::tempdir_in(if target.is_dir() { target } else { std::env::temp_dir() }).expect("there is room")
}

/// Every promise, for one way to make a rig.
macro_rules! contract {
    ($name:ident, $rig:expr) => {
        mod $name {
            use super::*;

            contract!(@each $rig; names_are_kept_inside, creates_lists_renames_removes, renamed_files_take_writes,
                reads_any_range_and_no_further, large_reads_and_zeros, a_gap_reads_as_zero, one_writer_at_a_time,
                a_closed_file_is_not_found,
            readers_do_not_write, writes_at_each_depth, an_error_poisons_the_queue);

            #[test]
            #[should_panic = "writes in flight"]
            fn the_bound_is_asserted() {
                let Some(mut rig) = $rig else { panic!("(skipped) writes in flight") };
                contract::the_bound_is_asserted(&mut rig);
            }

            #[test]
            #[should_panic = "is not aligned"]
            fn a_write_off_the_blocks_is_our_bug() {
                let Some(mut rig) = $rig else { panic!("(skipped) is not aligned") };
                contract::a_write_off_the_blocks_is_our_bug(&mut rig);
            }
        }
    };
    (@each $rig:expr; $($test:ident),*) => {
        $(
            #[test]
            fn $test() {
                let Some(mut rig) = $rig else { return };
                contract::$test(&mut rig);
            }
        )*
    };
}

fn blocking(mode: SyncMode, direct: bool) -> Option<BlockingRig> {
    Some(BlockingRig::with(mode, direct, Seam::default(), DISK_OPERATION_AGE_MAX))
}

contract!(blocking_fdatasync, blocking(SyncMode::Fdatasync, true));
contract!(blocking_dsync, blocking(SyncMode::Dsync, true));
contract!(blocking_plain_fdatasync, blocking(SyncMode::Fdatasync, false));
contract!(blocking_plain_dsync, blocking(SyncMode::Dsync, false));

fn faulty(faults: impl IntoIterator<Item = Fault>) -> BlockingRig {
    BlockingRig::with(SyncMode::Fdatasync, true, Seam::with(faults), DISK_OPERATION_AGE_MAX)
}

/// Short writes, interruptions and a kernel that asks to come again are not the caller's business.
fn is_finished_whole(rig: &mut impl Rig) {
    let file = contract::create(rig.files(), "f", &[1; 4 * BLOCK_BYTES]);
    rig.submit(contract::write(1, file, 0, 2, 4));
    rig.wait().result.expect("it is finished in the end");
    assert_eq!(contract::read(rig.files(), file, 0, 4 * BLOCK_BYTES), [2; 4 * BLOCK_BYTES]);
    rig.files().close(file);
}

const INTERRUPTIONS: [Fault; 6] = [
    Fault::Short(BLOCK_BYTES),
    Fault::Fails(Errno::INTR),
    Fault::Short(2 * BLOCK_BYTES),
    Fault::Short(512),
    Fault::Fails(Errno::AGAIN),
    Fault::None,
];

#[test]
fn blocking_finishes_short_writes() {
    is_finished_whole(&mut faulty(INTERRUPTIONS));
}

/// The first fault hits the write, the second its flush; what comes later is never tried.
fn an_error_is_final(rig: &mut impl Rig, operation: Operation) {
    let file = contract::create(rig.files(), "f", &[1; BLOCK_BYTES]);
    rig.submit(contract::write(1, file, 0, 2, 1));
    let error = rig.wait().result.expect_err("the disk failed");
    assert_eq!((error.operation, error.source.raw_os_error()), (operation, Some(Errno::IO.raw_os_error())));
    assert!(error.to_string().contains("/f at offset 0"), "{error}");
    rig.submit(contract::write(2, file, 0, 3, 1));
    assert!(rig.wait().result.is_err(), "a flush that is asked for again may lie");
    assert_eq!(contract::read(rig.files(), file, 0, 1), [2], "nothing is written after an error");
}

#[test]
fn blocking_write_errors_are_final() {
    an_error_is_final(&mut faulty([Fault::Fails(Errno::IO)]), Operation::Write);
}

#[test]
fn blocking_flush_errors_are_final() {
    an_error_is_final(&mut faulty([Fault::None, Fault::Fails(Errno::IO)]), Operation::Flush);
}

/// A write that hangs is given up with its buffer: the kernel still has that one.
fn hung_writes_are_lost(rig: &mut impl Rig) {
    let file = contract::create(rig.files(), "f", &[1; BLOCK_BYTES]);
    rig.submit(contract::write(1, file, 0, 2, 1));
    rig.submit(contract::write(2, file, 0, 2, 1));
    assert!(rig.take().is_none(), "it is not old yet");
    std::thread::sleep(Duration::from_millis(60));
    let completion = rig.wait();
    assert_eq!((completion.token, completion.buffer.len()), (Token(1), 0));
    assert_eq!(completion.result.expect_err("it hangs").kind(), std::io::ErrorKind::TimedOut);
    assert!(rig.wait().result.is_err(), "nothing counts after that");
    rig.submit(contract::write(3, file, 0, 2, 1));
    assert!(rig.wait().result.is_err(), "nothing counts after that");
}

#[test]
fn blocking_gives_up_on_a_hung_disk() {
    let seam = Seam::with([Fault::Hangs(Duration::from_secs(2))]);
    hung_writes_are_lost(&mut BlockingRig::with(SyncMode::Fdatasync, true, seam, Duration::from_millis(50)));
}

/// What the kernel has of a file keeps the lock: a request in flight holds a descriptor like this one.
#[test]
fn writes_in_flight_keep_the_lock() {
    for mode in [SyncMode::Dsync, SyncMode::Fdatasync] {
        let root = scratch();
        let (directory, other) = (Directory::open(root.path()), Directory::open(root.path()));
        let (directory, other) = (directory.expect("it exists"), other.expect("it exists"));
        let file = contract::create(&directory, "f", &[1; BLOCK_BYTES]);
        let in_flight = directory.target(file, mode).expect("it is open").descriptor;
        directory.close(file);
        drop(directory);
        assert!(other.open("f").expect_err("a write may still land").is_locked(), "{mode}");
        drop(in_flight);
        other.close(other.open("f").expect("nothing can land any more"));
    }
}

/// A kernel that never gets anywhere is not asked for ever.
#[test]
fn endless_short_writes_are_an_error() {
    for fault in [Fault::Short(512), Fault::Fails(Errno::AGAIN)] {
        let mut rig = faulty(std::iter::repeat_n(fault, 5_000));
        let file = contract::create(rig.files(), "f", &[1; BLOCK_BYTES]);
        rig.submit(contract::write(1, file, 0, 2, 1));
        assert_eq!(rig.wait().result.expect_err("it gets nowhere").operation, Operation::Write);
    }
}

/// One flush covers what queued up, and only after all of it is written: a write that fails is in front of it.
#[test]
fn blocking_flushes_a_batch_once() {
    let seam = Seam::with([
        Fault::Hangs(Duration::from_millis(200)),
        Fault::None,
        Fault::None,
        Fault::None,
        Fault::Fails(Errno::IO),
    ]);
    let faults = seam.clone();
    let mut rig = BlockingRig::with(SyncMode::Fdatasync, true, seam, DISK_OPERATION_AGE_MAX);
    let file = contract::create(rig.files(), "f", &[1; 4 * BLOCK_BYTES]);
    rig.submit(contract::write(1, file, 0, 2, 1));
    while faults.left() == 5 {
        std::thread::yield_now();
    }
    // The first one is being written; the others queue up behind it.
    rig.submit(contract::write(2, file, 1, 2, 1));
    rig.submit(contract::write(3, file, 2, 2, 1));
    rig.wait().result.expect("write and flush are the first two requests");
    for token in [2, 3] {
        let completion = rig.wait();
        let error = completion.result.expect_err("the flush of both is the fifth request");
        assert_eq!((completion.token, error.operation), (Token(token), Operation::Flush));
    }
}

#[test]
fn a_directory_is_never_made_by_opening() {
    let root = scratch();
    let path = root.path().join("data");
    let error = Directory::open(&path).expect_err("it does not exist");
    assert_eq!((error.operation, error.kind()), (Operation::Open, std::io::ErrorKind::NotFound));
    assert!(!path.exists());
    Directory::create(&path).expect("there is room");
    assert_eq!(Directory::create(&path).expect_err("it exists").kind(), std::io::ErrorKind::AlreadyExists);
    Directory::open(&path).expect("it exists");
}

#[test]
fn links_are_not_followed() {
    let root = scratch();
    std::fs::create_dir(root.path().join("real")).expect("there is room");
    std::fs::write(root.path().join("real/file"), b"x").expect("there is room");
    std::os::unix::fs::symlink("real", root.path().join("link")).expect("there is room");
    std::os::unix::fs::symlink("real/file", root.path().join("linked_file")).expect("there is room");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.path().join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .expect("there is room");
    let directory = Directory::open(root.path()).expect("it exists");
    directory.open_read("real/file").expect("no link lies on the way");
    for name in ["link/file", "linked_file", "link", "real", "pipe"] {
        assert!(directory.open_read(name).is_err(), "{name}");
        assert!(directory.open(name).is_err(), "{name}");
    }
    assert!(directory.list("link").is_err());
    assert!(directory.create("link/new").is_err());
    assert!(directory.create_directory("link").is_err());
}

#[test]
fn choices_are_spelled_as_they_are_read() {
    for word in ["dsync", "fdatasync"] {
        assert_eq!(word.parse::<SyncMode>().expect("it is known").to_string(), word);
    }
    for word in ["auto", "uring", "blocking"] {
        assert_eq!(word.parse::<IoChoice>().expect("it is known").to_string(), word);
    }
    assert_eq!("uring".parse::<Backend>().expect("it is known").to_string(), "uring");
    let error = "iouring".parse::<IoChoice>().expect_err("it is not known");
    assert_eq!(error.to_string(), "\"iouring\" is none of auto, uring, blocking");
}

/// Real files, and the ring.
struct UringRig {
    root: tempfile::TempDir,
    directory: Directory,
    queue: UringQueue,
    runtime: Runtime,
}

impl UringRig {
    /// None, and a line that says so, where the kernel gives no ring.
    fn with(mode: SyncMode, direct: bool, seam: Seam, age_max: Duration) -> Option<UringRig> {
        let runtime = match Runtime::new(Backend::Uring) {
            Ok(runtime) => runtime,
            Err(error) => {
                skipped("disk on io_uring", &error.to_string());
                return None;
            }
        };
        let root = scratch();
        let directory = if direct { Directory::open(root.path()) } else { Directory::open_plain(root.path()) };
        let directory = directory.expect("it was just made");
        let queue = UringQueue::with_seam(directory.clone(), mode, Box::new(|| {}), seam, age_max);
        Some(UringRig { root, directory, queue, runtime })
    }
}

impl Rig for UringRig {
    type Files = Directory;

    fn files(&self) -> &Directory {
        &self.directory
    }

    fn another(&self) -> Directory {
        Directory::open(self.root.path()).expect("it exists")
    }

    fn submit(&mut self, write: Write) {
        self.runtime.block_on(async { self.queue.submit(write) });
    }

    fn take(&mut self) -> Option<Completion> {
        self.queue.take()
    }

    fn turn(&mut self) {
        self.runtime.block_on(async { tokio::time::sleep(Duration::from_micros(50)).await });
    }
}

fn uring(mode: SyncMode, direct: bool) -> Option<UringRig> {
    UringRig::with(mode, direct, Seam::default(), DISK_OPERATION_AGE_MAX)
}

contract!(uring_fdatasync, uring(SyncMode::Fdatasync, true));
contract!(uring_dsync, uring(SyncMode::Dsync, true));
contract!(uring_plain_fdatasync, uring(SyncMode::Fdatasync, false));

fn faulty_uring(mode: SyncMode, faults: impl IntoIterator<Item = Fault>) -> Option<UringRig> {
    UringRig::with(mode, true, Seam::with(faults), DISK_OPERATION_AGE_MAX)
}

#[test]
fn uring_finishes_short_writes() {
    for mode in [SyncMode::Dsync, SyncMode::Fdatasync] {
        let Some(mut rig) = faulty_uring(mode, INTERRUPTIONS) else { return };
        is_finished_whole(&mut rig);
    }
}

#[test]
fn uring_errors_are_final() {
    let Some(mut rig) = faulty_uring(SyncMode::Dsync, [Fault::Fails(Errno::IO)]) else { return };
    an_error_is_final(&mut rig, Operation::Write);
    let faults = [Fault::None, Fault::Fails(Errno::IO)];
    an_error_is_final(&mut faulty_uring(SyncMode::Fdatasync, faults).expect("it was there"), Operation::Flush);
}

#[test]
fn uring_gives_up_on_a_hung_disk() {
    let seam = Seam::with([Fault::Hangs(Duration::MAX)]);
    let Some(mut rig) = UringRig::with(SyncMode::Dsync, true, seam, Duration::from_millis(50)) else { return };
    let file = contract::create(rig.files(), "f", &[1; BLOCK_BYTES]);
    rig.submit(contract::write(1, file, 0, 2, 1));
    let completion = rig.wait();
    assert_eq!((completion.token, completion.buffer.len()), (Token(1), 0));
    assert_eq!(completion.result.expect_err("it hangs").kind(), std::io::ErrorKind::TimedOut);
    rig.submit(contract::write(2, file, 0, 3, 1));
    assert!(rig.wait().result.is_err(), "nothing counts after that");
}

/// Completions come as they happen, and an error takes those with it that come later.
#[test]
fn uring_completes_in_any_order() {
    let Some(mut rig) = faulty_uring(SyncMode::Dsync, [Fault::Late(50_000)]) else { return };
    let file = contract::create(rig.files(), "f", &[1; 2 * BLOCK_BYTES]);
    rig.submit(contract::write(1, file, 0, 2, 1));
    rig.submit(contract::write(2, file, 1, 2, 1));
    assert_eq!([rig.wait().token, rig.wait().token], [Token(2), Token(1)]);

    let faults = [Fault::Late(50_000), Fault::Fails(Errno::IO)];
    let mut rig = faulty_uring(SyncMode::Dsync, faults).expect("it was there");
    let file = contract::create(rig.files(), "f", &[1; 2 * BLOCK_BYTES]);
    rig.submit(contract::write(1, file, 0, 2, 1));
    rig.submit(contract::write(2, file, 1, 2, 1));
    let (first, second) = (rig.wait(), rig.wait());
    assert_eq!([first.token, second.token], [Token(2), Token(1)]);
    assert!(first.result.is_err() && second.result.is_err(), "what is in flight at an error does not count");
}

/// The kernel gets a write at the hand-over: a thread that never parks, never even yields, sees it reach the disk.
#[test]
fn uring_writes_leave_a_busy_thread() {
    let Some(mut rig) = uring(SyncMode::Dsync, true) else { return };
    let file = contract::create(rig.files(), "f", &[1; BLOCK_BYTES]);
    let reader = rig.directory.open_read("f").expect("it exists");
    leaves_without_a_park(&mut rig, reader, |queue, _| {
        queue.submit(contract::write(1, file, 0, 2, 1));
        queue.hand_over();
    });
}

/// What `submit` writes at the beginning of a file arrives there, on a thread that never parks.
fn leaves_without_a_park(rig: &mut UringRig, reader: FileId, submit: impl FnOnce(&mut UringQueue, &Directory)) {
    let (queue, directory) = (&mut rig.queue, &rig.directory);
    let arrived = rig.runtime.block_on(async {
        submit(queue, directory);
        let start = std::time::Instant::now();
        let mut arrived = false;
        while !arrived && start.elapsed() < Duration::from_secs(5) {
            arrived = contract::read(directory, reader, 0, 1) == [2];
        }
        arrived
    });
    assert!(arrived, "the request waits in the ring for a park");
    rig.wait().result.expect("nothing is wrong with the disk");
}

/// A task that wakes itself for ever keeps the thread from parking: completions come all the same.
#[test]
fn uring_completes_beside_a_busy_task() {
    for mode in [SyncMode::Dsync, SyncMode::Fdatasync] {
        let Some(mut rig) = uring(mode, true) else { return };
        let file = contract::create(rig.files(), "f", &[1; BLOCK_BYTES]);
        let queue = &mut rig.queue;
        let completion = rig.runtime.block_on(async {
            queue.submit(contract::write(1, file, 0, 2, 1));
            let start = std::time::Instant::now();
            loop {
                if let Some(completion) = queue.take() {
                    return Some(completion);
                }
                if start.elapsed() > Duration::from_secs(5) {
                    return None;
                }
                tokio::task::yield_now().await;
                queue.hand_over();
            }
        });
        completion.expect("it completes without a park").result.expect("nothing is wrong with the disk");
    }
}

#[test]
fn both_runtimes_have_timers_sockets_and_tasks() {
    for backend in [Backend::Blocking, Backend::Uring] {
        let runtime = match Runtime::new(backend) {
            Ok(runtime) => runtime,
            Err(error) => {
                assert_eq!(backend, Backend::Uring, "{error}");
                skipped("disk on io_uring", &error.to_string());
                continue;
            }
        };
        assert_eq!(runtime.backend(), backend);
        let answer = runtime.block_on(async {
            let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a port is free");
            let address = socket.local_addr().expect("it is bound");
            let task = tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(1)).await;
                let sender = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port is free");
                sender.send_to(b"hello", address).expect("it is there");
            });
            let mut bytes = [0; 8];
            let (count, _) = socket.recv_from(&mut bytes).await.expect("it is bound");
            task.await.expect("it does not panic");
            tokio::task::spawn_local(async move { count }).await.expect("it does not panic")
        });
        assert_eq!(answer, 5);
    }
}

const DIRECT: FileSystem = FileSystem { direct: true, is_fuse: false };
const CACHED: FileSystem = FileSystem { direct: false, is_fuse: false };
const FUSE: FileSystem = FileSystem { direct: true, is_fuse: true };

fn refused(error: Errno) -> Option<Result<(), Error>> {
    Some(Err(Error::new(Operation::SetUp, "io_uring", error)))
}

#[test]
fn a_refused_ring_means_blocking_and_says_so() {
    let refusals = [
        (Errno::PERM, "not permitted"),
        (Errno::NOSYS, "no io_uring"),
        (Errno::INVAL, "lacks"),
        (Errno::NOMEM, "locked memory"),
    ];
    for (error, words) in refusals {
        let probed = probe::decide(DIRECT, IoChoice::Auto, refused(error)).expect("the other back end works");
        assert_eq!(probed.backend, Backend::Blocking);
        assert!(probed.reason.contains(words), "{}", probed.reason);
        let insisted = probe::decide(DIRECT, IoChoice::Uring, refused(error)).expect_err("it was insisted on");
        assert!(matches!(&insisted, ProbeError::Refused { cause, .. } if cause.contains(words)), "{insisted}");
    }
    let probed = probe::decide(CACHED, IoChoice::Auto, Some(Ok(()))).expect("the other back end works");
    assert_eq!((probed.backend, probed.reason.as_str()), (Backend::Blocking, "the file system has no O_DIRECT"));
    assert!(probe::decide(CACHED, IoChoice::Uring, Some(Ok(()))).is_err());
    for choice in [IoChoice::Auto, IoChoice::Uring] {
        let failed = probe::decide(DIRECT, choice, refused(Errno::MFILE));
        assert!(matches!(failed, Err(ProbeError::Disk(_))), "any other error is an error");
        assert_eq!(probe::decide(DIRECT, choice, Some(Ok(()))).expect("all is well").backend, Backend::Uring);
    }
    let on_fuse = |choice| probe::decide(FUSE, choice, Some(Ok(()))).expect("it can be used");
    assert_eq!(on_fuse(IoChoice::Auto).backend, Backend::Blocking, "a short write would be silently wrong");
    assert_eq!(on_fuse(IoChoice::Uring).backend, Backend::Uring, "it was insisted on");
    assert!(on_fuse(IoChoice::Uring).reason.contains("FUSE"), "and is told");
    assert_eq!(probe::decide(DIRECT, IoChoice::Blocking, None).expect("it always works").backend, Backend::Blocking);
}

#[test]
fn probing_and_measuring_leave_nothing_behind() {
    let root = scratch();
    let directory = Directory::open(root.path()).expect("it exists");
    let probed = probe::probe(&directory, IoChoice::Auto).expect("one of them works");
    eprintln!("{probed}");
    let times = measure_flush(&directory).expect("the disk works");
    eprintln!("{times:?}");
    assert!(times.samples > 0 && times.dsync > Duration::ZERO && times.fdatasync > Duration::ZERO);
    assert_eq!(directory.list("").expect("it exists"), Vec::<String>::new());
}

/// The simulated disk, whose writes complete in an order of its own.
struct SimRig {
    disk: SimDisk,
    files: SimFiles,
    queue: SimQueue,
    random: Random,
}

impl SimRig {
    fn new(seed: u64) -> SimRig {
        let disk = SimDisk::new();
        let (files, queue) = (disk.files(), disk.queue());
        SimRig { disk, files, queue, random: Random::seeded(seed) }
    }
}

impl Rig for SimRig {
    type Files = SimFiles;

    fn files(&self) -> &SimFiles {
        &self.files
    }

    fn another(&self) -> SimFiles {
        self.disk.files()
    }

    fn submit(&mut self, write: Write) {
        self.queue.submit(write);
    }

    fn take(&mut self) -> Option<Completion> {
        self.queue.take()
    }

    fn turn(&mut self) {
        self.disk.complete_any(&mut self.random);
    }
}

contract!(simulated, Some(SimRig::new(1)));
