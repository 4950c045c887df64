//! Names that a cut of power takes, and files that are not as they should be.

use std::collections::BTreeSet;

use super::crash::cuts;
use super::model::State;
use super::rig::{DIRECTORY, G, READINGS, Rig, Start, open, open_as, options, segment, tear};
use super::rot::{Log3, log};
use super::voter::{self, Voter};
use crate::disk::Files;
use crate::limits::BLOCK_BYTES;
use crate::random::Random;
use crate::sim::disk::{Code, SimDisk, What};
use crate::sim::proofs::Proof;
use crate::superblock::{self, FILE_NAME};
use crate::types::{FrameNumber, GroupId, Place, SegmentNumber};
use crate::wal::{Acknowledged, Analysis, Error, Log, Severity, Source};

/// What a name is of.
fn kind(name: &str) -> &'static str {
    let endings = [(".cut.preparing", "copy in the making"), (".preparing", "segment in the making")];
    let endings = endings.into_iter().chain([(".segment", "segment"), (".cut", "copy of a torn tail")]);
    let ending = endings.into_iter().find(|(ending, _)| name.ends_with(ending));
    match name {
        FILE_NAME => "superblock",
        "superblock.new" => "superblock in the making",
        DIRECTORY => "directory",
        _ => ending.map_or("other", |(_, kind)| kind),
    }
}

/// A life in which every kind of file is made, renamed and removed: the log and the superblock are made, segments are
/// filled and used again, and a torn tail is cut. Ends at once when the power goes; what was acknowledged is in the rig.
fn life(disk: &SimDisk) -> Option<(Rig, bool)> {
    let own = super::rig::identity();
    let state = superblock::State::new(own.cluster, own.node, own.incarnation, Default::default());
    let is_formatted = superblock::format(&disk.files(), &state).is_ok();
    let log = Log::create(&disk.files(), options(), 1).ok()?;
    let mut rig = Rig::with(disk.clone(), log, super::model::Model::new(State::new()));
    // More than are kept for use again.
    for _ in 0..5 {
        rig.rotate(G);
        rig.settle();
    }
    rig.purge(G, rig.model.group(G).last());
    rig.rotate(G);
    rig.settle();
    Some((rig, is_formatted))
}

/// A log that is to be opened, with a torn tail.
fn torn() -> (SimDisk, Rig) {
    let mut rig = Rig::new(options());
    rig.grow(G, 2, 300);
    rig.settle();
    tear(&mut rig);
    (rig.disk.clone(), rig)
}

/// And with what a start before it left.
fn left_over() -> (SimDisk, Rig) {
    let (disk, rig) = torn();
    disk.plant("log/0000000000000099.preparing", &[1; 5000]);
    disk.plant("log/0000000000000001-8192.cut.preparing", &[1; 500]);
    (disk, rig)
}

/// D10: at each operation the power goes, and of the creates, renames and removals that no flush of the directory
/// covers each subset is lost, with what was not flushed of the files.
pub fn names(proof: &Proof) {
    let mut seen = BTreeSet::new();
    let most = proof.pick(12, 64, 256);
    for at in 0.. {
        let disk = SimDisk::new();
        disk.plant("superblock.new", &[1; 5000]);
        disk.crash_at(at);
        let lived = life(&disk);
        let is_over = !disk.is_off();
        note(&disk, &mut seen);
        cuts(&disk, most, &mut Random::seeded(at), |fork| {
            check_life(&fork, lived.as_ref(), at);
            proof.case();
        });
        if is_over {
            break;
        }
    }
    let made = [torn as fn() -> (SimDisk, Rig), left_over];
    for (made, reading) in made.into_iter().flat_map(|made| READINGS.map(|reading| (made, reading))) {
        for at in 0.. {
            let (disk, rig) = made();
            disk.crash_at(disk.operations() + at);
            let is_open = open_as(&disk, &options(), Start { reading, ..rig.start() }).is_ok();
            note(&disk, &mut seen);
            let mut random = Random::seeded(at);
            let after = Start::drawn(&rig.learned, &mut random);
            cuts(&disk, most, &mut random, |fork| {
                let opened = open_as(&fork, &options(), after);
                let (.., found) = opened.unwrap_or_else(|error| panic!("cut at {at}, {after:?}: {error}"));
                assert!(rig.model.is_possible(&found), "cut at {at}, {after:?}");
                proof.case();
            });
            if is_open {
                break;
            }
        }
    }
    let wanted = [
        ("create", "directory"),
        ("create", "segment in the making"),
        ("rename", "segment in the making"),
        ("rename", "segment"),
        ("remove", "segment"),
        ("create", "copy in the making"),
        ("rename", "copy in the making"),
        ("create", "superblock in the making"),
        ("rename", "superblock in the making"),
        ("remove", "segment in the making"),
        ("remove", "copy in the making"),
        ("remove", "superblock in the making"),
    ];
    let missing: Vec<_> = wanted.iter().filter(|own| !seen.contains(*own)).collect();
    assert!(missing.is_empty(), "never lost: {missing:?} of {seen:?}");
}

/// Which changes of names are loose.
fn note(disk: &SimDisk, seen: &mut BTreeSet<(&'static str, &'static str)>) {
    for loose in disk.loose() {
        let What::Name { change } = loose.what else { continue };
        let mut words = change.split(' ');
        let (act, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let act = ["create", "rename", "remove"].into_iter().find(|own| *own == act).expect("one of the three");
        seen.insert((act, kind(name)));
    }
}

fn check_life(fork: &SimDisk, lived: Option<&(Rig, bool)>, at: u64) {
    match superblock::load(&fork.files(), 0) {
        Ok(_) => {}
        Err(superblock::Error::NotFormatted) => {
            assert!(lived.is_none_or(|(_, is_formatted)| !is_formatted), "cut at {at}: the superblock is lost");
            voter::format(fork);
        }
        Err(error) => panic!("cut at {at}: {error}"),
    }
    let learned = lived.map_or(&[][..], |(rig, _)| &rig.learned);
    let start = Start::drawn(learned, &mut Random::seeded(fork.operations()));
    match (open_as(fork, &options(), start), lived) {
        (Ok((.., found)), Some((rig, _))) => assert!(rig.model.is_possible(&found), "cut at {at}"),
        (Ok((.., found)), None) => assert!(found.is_empty(), "cut at {at}"),
        (Err(Error::Missing { .. } | Error::Disk(_)), None) => {
            drop(Log::create(&fork.files(), options(), 1).unwrap_or_else(|error| panic!("cut at {at}: {error}")));
        }
        (Err(error), _) => panic!("cut at {at}: {error}"),
    }
}

/// What is done to one file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Strange {
    Missing,
    /// A copy of it stands under another name of its kind.
    Doubled,
    Empty,
    Refused(Code),
}

const STRANGE: [Strange; 8] = [
    Strange::Missing,
    Strange::Doubled,
    Strange::Empty,
    Strange::Refused(Code::Io),
    Strange::Refused(Code::NotPermitted),
    Strange::Refused(Code::TooManyFiles),
    Strange::Refused(Code::Link),
    Strange::Refused(Code::Interrupted),
];

/// D10: each file of a directory missing, doubled, empty, unopenable, a link; a directory that is read-only. It is
/// refused, with nothing changed, or all of the log is there.
pub fn files(proof: &Proof) {
    let log = log();
    let _ = Voter::new(&log.disk);
    log.disk.kill(&mut Random::seeded(1));
    log.disk.plant("log/0000000000000001-8192.cut", b"what was torn once");
    log.disk.plant("log/0000000000000099.preparing", &[1; 5000]);
    log.disk.plant("superblock.new", &[1; 5000]);
    let names = log.disk.files().list(DIRECTORY).expect("it exists");
    let names: Vec<String> = names.iter().map(|name| format!("{DIRECTORY}/{name}")).collect();
    assert!(names.len() >= 3 + 3 + 2, "{names:?}");
    for strange in STRANGE {
        for name in &names {
            let what = format!("{strange:?} {name}");
            let fork = with(&log, strange, name);
            for reading in READINGS {
                let fork = fork.fork();
                // The superblock says how far the log was durable.
                let opened = open_as(&fork, &options(), Start { evidence: log.end, reading });
                let is_of_chain = log.segments.iter().any(|(own, _)| own == name);
                assert!(opened.is_err() || !is_of_chain, "{what}: a segment of the chain is not as it was");
                match opened {
                    Ok((.., found)) => assert!(found == log.state, "{what}"),
                    Err(_) => is_unchanged(&log, &fork, name, &what),
                }
                proof.case();
            }
        }
        superblock_is(&log, strange);
        proof.case();
    }
    read_only(&log, proof);
}

fn with(log: &Log3, strange: Strange, name: &str) -> SimDisk {
    let fork = log.disk.fork();
    match strange {
        Strange::Missing => fork.lose(name),
        Strange::Doubled => {
            let ending = name.split_once('.').map_or("", |(_, ending)| ending);
            fork.plant(&format!("{DIRECTORY}/0000000000000777.{ending}"), &fork.contents(name));
            if name.ends_with(".segment") && !log.segments.iter().any(|(own, _)| own == name) {
                // A spare one more does no harm unless it claims to be another.
                fork.lose(name);
            }
        }
        Strange::Empty => fork.truncate(name, 0),
        Strange::Refused(code) => fork.refuse_to_open(name, Some(code)),
    }
    fork
}

fn is_unchanged(log: &Log3, fork: &SimDisk, but: &str, what: &str) {
    for (name, _) in log.segments.iter().filter(|(name, _)| name != but) {
        assert!(fork.contents(name) == log.disk.contents(name), "{what}: {name} is changed");
    }
}

fn superblock_is(log: &Log3, strange: Strange) {
    let fork = log.disk.fork();
    match strange {
        Strange::Missing => fork.lose(FILE_NAME),
        Strange::Doubled => fork.plant("superblock.new", &fork.contents(FILE_NAME)),
        Strange::Empty => fork.truncate(FILE_NAME, 0),
        Strange::Refused(code) => fork.refuse_to_open(FILE_NAME, Some(code)),
    }
    let said = superblock::load(&fork.files(), 0).map(drop);
    assert_eq!(said.is_ok(), strange == Strange::Doubled, "{strange:?} superblock: {said:?}");
}

/// What was wrong with the file was one finding, and which entries that costs another.
#[test]
fn a_segment_within_the_log_that_cannot_join_it_is_one_finding() {
    let log = log();
    let name = &log.segments[1].0;
    let bytes = log.disk.contents(name);
    let end = bytes.len() as u64;
    let block = BLOCK_BYTES as u64;
    type Damage<'a> = (&'a str, &'a dyn Fn(&SimDisk));
    let cases: [Damage<'_>; 7] = [
        ("missing", &|fork| fork.lose(name)),
        ("65541 bytes", &|fork| fork.plant(name, &[&bytes[..], b"junk!"].concat())),
        ("61440 bytes", &|fork| fork.truncate(name, end - block)),
        ("0 bytes", &|fork| fork.truncate(name, 0)),
        ("header", &|fork| [0, end - block].into_iter().for_each(|at| fork.zero(name, at..at + block))),
        ("the open frame", &|fork| fork.fill(name, block..end - block, 0xff)),
        ("cannot open", &|fork| fork.refuse_to_open(name, Some(Code::Link))),
    ];
    for (what, damage) in cases {
        for evidence in [Place::START, log.evidence, log.end] {
            let fork = log.disk.fork();
            damage(&fork);
            let source = Source { evidence, ..Source::from_outside(DIRECTORY) };
            let found = Analysis::read(&fork.files(), &source).expect("the others can be read").findings;
            let [finding] = found.as_slice() else { panic!("{what}, {evidence}: {found:#?}") };
            assert!(finding.file == *name && finding.what.contains(what), "{what}, {evidence}: {finding}");
            let is_told = (finding.severity, finding.acknowledged) == (Severity::Corrupt, Some(Acknowledged::Yes));
            let groups: BTreeSet<GroupId> = finding.entries.iter().map(|ids| ids.group).collect();
            assert!(is_told && groups == [G, GroupId(1)].into(), "{what}, {evidence}: {finding}");
            assert!(finding.bytes.end > block, "{what}, {evidence}: where its frames stood is told: {finding}");
        }
    }
}

/// On a read-only disk nothing is opened to be written, and everything can be read; then it is as it was.
fn read_only(log: &Log3, proof: &Proof) {
    let fork = log.disk.fork();
    fork.set_read_only(true);
    for reading in READINGS {
        assert!(open_as(&fork, &options(), Start { evidence: log.end, reading }).is_err());
    }
    assert!(superblock::load(&fork.files(), 0).is_err());
    superblock::inspect(&fork.files()).expect("it can be read");
    assert_eq!(super::rot::severity(&fork), None, "and so can the log");
    fork.set_read_only(false);
    let (_, _, found) = open(&fork, &options()).expect("it is as it was");
    assert!(found == log.state);
    proof.case();
    // One that was read-only when a segment was wanted: it waits, and goes on.
    let mut rig = Rig::new(options());
    rig.settle();
    let evidence = Place { segment: SegmentNumber(1), offset: 8192, frame: FrameNumber(1) };
    assert!(rig.log.durable_end() >= evidence);
    rig.grow(G, 1, 20_000);
    rig.disk.set_read_only(true);
    rig.pump();
    rig.disk.complete_all();
    rig.take();
    assert!(rig.is_poisoned, "a frame that is refused poisons");
    rig.disk.set_read_only(false);
    rig.disk.crash(&mut Random::seeded(2));
    assert!(rig.disk.contents(&segment(1)).len() == 65_536);
    rig.reopened().rest();
    proof.case();
}
