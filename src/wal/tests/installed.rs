//! Snapshots beside the log, on the same disk, that take the place of its beginning.

use bytes::BytesMut;

use super::rig::{G, WHOLE, identity, open_as};
use crate::checksum::Checksum;
use crate::limits::SECTOR_BYTES;
use crate::sim::disk::SimDisk;
use crate::snapshot::{Builder, ChunkSource, Condition, Description, Step, list, verify};
use crate::superblock;
use crate::types::{GroupId, Incarnation, Index, LogId, Member, Membership, NodeId, Term};
use crate::wal::Options;

/// The state at a point, which nothing but that point has.
struct State(Vec<u8>);

impl ChunkSource for State {
    fn encode_next(&mut self, out: &mut BytesMut) -> bool {
        let is_more = !self.0.is_empty();
        out.extend(self.0.drain(..));
        is_more
    }
}

/// Of two chunks.
fn state(point: LogId) -> State {
    State(vec![point.index.0 as u8; SECTOR_BYTES + 100])
}

fn description(point: LogId) -> Description {
    let address = "127.0.0.1:7000".parse().expect("an address");
    let member = Member { id: NodeId(2), incarnation: Incarnation(3), address };
    let membership = Membership { voters: [member.id].into(), members: vec![member], ..Membership::default() };
    Description {
        cluster: identity().cluster,
        group: GroupId::CLUSTER,
        point,
        membership,
        membership_id: LogId::new(Term(1), Index(1)),
        log_start: Index(1),
        last_record: Index::ZERO,
        log_digest: Checksum(7),
    }
}

/// A snapshot at this point. Tells whether it is durable under its name.
pub fn make(disk: &SimDisk, point: LogId) -> bool {
    let mut builder = Builder::with_chunks(description(point), Box::new(state(point)), SECTOR_BYTES);
    loop {
        match builder.step(&disk.files(), true) {
            Ok(Step::Done) => return !disk.is_off(),
            Ok(_) => {}
            Err(error) => {
                assert!(disk.is_off(), "nothing else is wrong with the disk: {error}");
                return false;
            }
        }
    }
}

/// What the superblock names is there and whole, and no log begins behind one of the `installs` that it does not name, or a
/// later one.
pub fn check(disk: &SimDisk, (options, installs): (&Options, &[LogId]), what: &dyn Fn() -> String) {
    if installs.is_empty() {
        return;
    }
    let named = superblock::inspect(&disk.files()).expect("it is intact").state.group(GroupId::CLUSTER).snapshot;
    let listing = list(&disk.files(), Some(identity().cluster)).expect("the directory can be listed");
    for found in &listing.found {
        let is_sound = matches!(found.condition, Condition::Whole(_) | Condition::Unfinished(_));
        assert!(is_sound, "{}: {found:?}", what());
    }
    if named != LogId::ZERO {
        let manifest = listing.whole(GroupId::CLUSTER).find(|manifest| manifest.description.point == named);
        let manifest = manifest.unwrap_or_else(|| panic!("{}: the snapshot at {named} is not there", what()));
        assert!(manifest.description == description(named), "{}", what());
        let bad = verify(&disk.files(), manifest).expect("it opens");
        assert!(bad.is_empty(), "{}: {bad:?}", what());
    }
    let fork = disk.fork();
    let (log, ..) = open_as(&fork, options, WHOLE).unwrap_or_else(|error| panic!("{}: {error}", what()));
    let before_first = log.group(G).map_or(LogId::ZERO, |group| group.before_first);
    let is_named = !installs.contains(&before_first) || before_first <= named;
    assert!(is_named, "{}: the log begins behind {before_first}, and {named} is named", what());
}
