//! Every bound and default that crosses a folder, in one place, tied together by const asserts.
//!
//! A bound that only one folder knows about stands in that folder. Units stand last in the names.

use std::time::Duration;

/// No entry has a higher index, so that the index behind a run, a batch or a log is always a number.
pub const INDEX_MAX: u64 = 1 << 62;
/// No term is higher, so that the next election's is always a number.
pub const TERM_MAX: u64 = 1 << 62;
/// And no directory is started so often.
pub const BOOT_MAX: u64 = 1 << 62;

/// Frames start and end on this; every write of the log is a multiple of it. The largest physical block in use.
pub const BLOCK_BYTES: usize = 4096;
/// The unit in which a disk tears a write.
pub const SECTOR_BYTES: usize = 512;

/// The largest record a client may append, and the largest command of the map.
pub const RECORD_BYTES_MAX: usize = 1 << 20;
/// The largest request of a client: all its records with their heads.
pub const REQUEST_BYTES_MAX: usize = 4 << 20;
/// Records in one request.
pub const REQUEST_RECORDS_MAX: usize = 1024;
/// What counts as one entry's fixed cost where a limit is in bytes: its place in queues and caches.
pub const ENTRY_OVERHEAD_BYTES: usize = 64;

/// The largest frame of the log, header and padding included: one write, one flush.
pub const FRAME_BYTES_MAX: usize = 8 << 20;
/// Runs in one frame's directory: (group, kind, term) changes within a batch.
pub const FRAME_RUNS_MAX: usize = 64;
/// Records in one frame.
pub const FRAME_RECORDS_MAX: usize = 65_536;
/// Groups that may share one log.
pub const GROUPS_MAX: usize = 64;
/// Writes of the log in flight at once on a disk that works on several at once, and where nothing was measured.
pub const WRITES_IN_FLIGHT_DEFAULT: usize = 2;
/// The most that may be configured.
pub const WRITES_IN_FLIGHT_MAX: usize = 8;

pub const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;
pub const SEGMENT_BYTES_MIN: u64 = 64 << 10;
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Segments that stand zero-filled ahead of use.
pub const SEGMENTS_READY: usize = 2;
/// Kept for internal entries (votes need none; no-ops, membership and trims do) when the disk is full.
pub const SEGMENTS_SPARE: usize = 1;
/// Kept of those that are given up, to be used again: as many as stand ready. What is more goes back to the disk.
pub const SEGMENTS_GIVEN_UP: usize = SEGMENTS_READY + SEGMENTS_SPARE;
/// Of those that could not be removed, and wait for another try, while others could be used again.
pub const SEGMENTS_UNREMOVED_MAX: usize = 4;
/// Where no spare segment stands ready, so much of the one in use is kept for them.
pub const SPARE_BYTES: u64 = 1 << 20;

/// Findings that are kept of what is wrong with a log's files, and as many again of what is wrong in its frames. The others
/// are counted.
pub const FINDINGS_MAX: usize = 2048;
/// Runs of entries that these name together, beyond one each.
pub const FINDING_RUNS_MAX: usize = FRAME_RECORDS_MAX;

/// A logical clock tick.
pub const TICK: Duration = Duration::from_millis(10);
pub const HEARTBEAT_DEFAULT: Duration = Duration::from_millis(50);
pub const ELECTION_MIN_DEFAULT: Duration = Duration::from_millis(300);
pub const ELECTION_MAX_DEFAULT: Duration = Duration::from_millis(600);

/// AppendEntries on their way to one follower.
pub const FOLLOWER_WINDOW_BYTES: usize = 8 << 20;
pub const FOLLOWER_WINDOW_MESSAGES: usize = 256;
/// What a leader reads from its log in a tick, at least, for a follower that lacks what is no longer in memory, while
/// clients write: as much as is fetched of a snapshot.
pub const RATION_BYTES_PER_TICK_MIN: u64 = SNAPSHOT_FETCH_BYTES_PER_SECOND_DEFAULT * TICK.as_millis() as u64 / 1000;
/// Entries in one AppendEntries: it must fit one wire frame.
pub const APPEND_BYTES_MAX: usize = 2 << 20;
pub const APPEND_ENTRIES_MAX: usize = 16_384;
/// Entries a leader has accepted and not committed, unless configured otherwise.
pub const UNCOMMITTED_BYTES_DEFAULT: usize = 64 << 20;
/// The least and the most that may be configured.
pub const UNCOMMITTED_BYTES_MIN: usize = 8 << 20;
pub const UNCOMMITTED_BYTES_MAX: usize = 1 << 30;
/// What waits for the core.
pub const CORE_QUEUE_BYTES_MAX: usize = 64 << 20;
/// What truncates and purges may take of the log's queue beyond the appends: 25 of them for each group. They are let in
/// where an append is not, since they may be what makes room; but on a disk that hangs they, too, would wait without end.
pub const CUT_QUEUE_BYTES: usize = 64 << 10;
/// Requests that one node has passed on to the leader and that are not answered.
pub const FORWARD_BYTES_MAX: usize = 8 << 20;
/// The newest entries, kept in memory for followers and readers.
pub const TAIL_CACHE_BYTES_MAX: usize = 64 << 20;
/// The newest frames of a log by itself, kept in the buffers that they were written from. More of them would be cold in
/// the processor's caches by the time they are written again, and slow the appends.
pub const FRAME_CACHE_BYTES_DEFAULT: usize = 8 << 20;

/// Kept of the log for followers that lag, though trimmed and in a snapshot, unless configured otherwise: as much as comes
/// to a follower faster as log than a snapshot of any size, and what a machine takes that is started anew.
pub const FOLLOWER_TAIL_BYTES_DEFAULT: u64 = 256 << 20;
pub const FOLLOWER_TAIL_MINUTES_DEFAULT: u64 = 10;

pub const SNAPSHOT_CHUNK_BYTES: usize = 1 << 20;
/// Chunks of one snapshot: 256 GiB. Their checksums stand in one manifest, which goes over the wire in one frame.
pub const SNAPSHOT_CHUNKS_MAX: usize = 1 << 18;
/// What a manifest says beside its checksums.
pub const SNAPSHOT_HEAD_BYTES: usize = 1024;
/// Whole snapshots of a group that stay.
pub const SNAPSHOTS_KEPT: usize = 2;
/// A snapshot is made when so much was applied since the last one, unless configured otherwise: what a start then has to
/// read and to apply again takes it some seconds.
pub const SNAPSHOT_ENTRIES_DEFAULT: u64 = 2_000_000;
pub const SNAPSHOT_BYTES_DEFAULT: u64 = 512 << 20;
/// What is written of one in a second, unless configured otherwise: a small part of what any disk that a log stands on
/// does, so that the log's flushes hardly notice.
pub const SNAPSHOT_BYTES_PER_SECOND_DEFAULT: u64 = 32 << 20;
/// What is fetched of another node's in a second, unless configured otherwise: which a disk writes beside the log.
pub const SNAPSHOT_FETCH_BYTES_PER_SECOND_DEFAULT: u64 = 64 << 20;
/// The least and the most that may be configured of either.
pub const SNAPSHOT_BYTES_PER_SECOND_MIN: u64 = 1 << 20;
pub const SNAPSHOT_BYTES_PER_SECOND_MAX: u64 = 16 << 30;
/// Between the beginnings of two nodes' snapshots at one point, at least.
pub const SNAPSHOT_TURN: Duration = Duration::from_secs(1);

/// Answers kept per session, in number and in bytes.
pub const SESSION_ANSWERS_MAX: usize = 1024;
pub const SESSION_ANSWER_BYTES_MAX: usize = 1 << 20;
pub const SESSIONS_MAX: usize = 10_000;

/// How long a client waits for an answer unless told otherwise.
pub const CLIENT_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);
/// Files of sub-directories that are held open though nobody uses them just now: each takes up to three descriptors.
pub const FILES_OPEN_MAX: usize = 128;
/// A disk operation older than this is lost: a hung disk.
pub const DISK_OPERATION_AGE_MAX: Duration = Duration::from_secs(30);

/// One frame on the wire: a request, an AppendEntries or a chunk, with its head.
pub const WIRE_FRAME_BYTES_MAX: usize = 8 << 20;
pub const MEMBERS_MAX: usize = 15;
/// Other nodes of which a node remembers the newest life that it has heard: all members, and some that come and go.
pub const LIVES_MET_MAX: usize = 24;

const _: () = assert!(LIVES_MET_MAX > MEMBERS_MAX);
const _: () = assert!(BLOCK_BYTES.is_multiple_of(SECTOR_BYTES));
const _: () = assert!(RECORD_BYTES_MAX < REQUEST_BYTES_MAX && REQUEST_BYTES_MAX < FRAME_BYTES_MAX);
const _: () = assert!(APPEND_BYTES_MAX + RECORD_BYTES_MAX < FRAME_BYTES_MAX);
const _: () = assert!(APPEND_BYTES_MAX + APPEND_ENTRIES_MAX * ENTRY_OVERHEAD_BYTES < WIRE_FRAME_BYTES_MAX);
const _: () = assert!(REQUEST_BYTES_MAX < WIRE_FRAME_BYTES_MAX);
const _: () =
    assert!(2 * SNAPSHOT_CHUNK_BYTES < WIRE_FRAME_BYTES_MAX && 8 * SNAPSHOT_CHUNKS_MAX < WIRE_FRAME_BYTES_MAX);
const _: () = assert!(SNAPSHOT_BYTES_PER_SECOND_MIN >= SNAPSHOT_CHUNK_BYTES as u64);
const _: () = assert!(APPEND_ENTRIES_MAX <= FRAME_RECORDS_MAX);
const _: () = assert!(1 <= WRITES_IN_FLIGHT_DEFAULT && WRITES_IN_FLIGHT_DEFAULT <= WRITES_IN_FLIGHT_MAX);
const _: () = assert!(SEGMENT_BYTES_MIN.is_multiple_of(BLOCK_BYTES as u64));
const _: () = assert!(ELECTION_MIN_DEFAULT.as_millis() >= 2 * HEARTBEAT_DEFAULT.as_millis());
const _: () = assert!(ELECTION_MAX_DEFAULT.as_millis() > ELECTION_MIN_DEFAULT.as_millis());
const _: () =
    assert!(FOLLOWER_WINDOW_BYTES <= UNCOMMITTED_BYTES_DEFAULT && UNCOMMITTED_BYTES_DEFAULT <= TAIL_CACHE_BYTES_MAX);
// A request finds room whole among what may be uncommitted, or is refused.
const _: () = assert!(REQUEST_BYTES_MAX + REQUEST_RECORDS_MAX * ENTRY_OVERHEAD_BYTES <= UNCOMMITTED_BYTES_MIN);
const _: () = assert!(REQUEST_BYTES_MAX + REQUEST_RECORDS_MAX * ENTRY_OVERHEAD_BYTES <= FORWARD_BYTES_MAX);
const _: () =
    assert!(UNCOMMITTED_BYTES_MIN <= UNCOMMITTED_BYTES_DEFAULT && UNCOMMITTED_BYTES_DEFAULT <= UNCOMMITTED_BYTES_MAX);
