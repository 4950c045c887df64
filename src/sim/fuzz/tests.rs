//! The targets over their committed corpus and over what becomes of it by mutation, without a fuzzer.

use super::{Done, History, Simulated, config_change, identity, operations, options, raft_step};
use super::{Transferred, Treason, snapshot_stream, wal_decode, wal_ops_crash, wal_recover_dir};
use crate::mutant::{self, Mutant};
use crate::random::Random;
use crate::sim::disk::SimDisk;
use crate::sim::log::carry_out;
use crate::superblock;
use crate::types::{Data, Entry, FrameNumber, GroupId, Index, LogId, Payload, Place, Term};
use crate::wal::Log;

type Target = (&'static str, fn(&[u8]));

/// The real disks take part in disk's tests and in fuzz/.
const TARGETS: [Target; 7] = [
    ("wal_decode", wal_decode),
    ("wal_recover_dir", wal_recover_dir),
    ("wal_ops_crash", |input| assert!(wal_ops_crash(input).crashes > 0)),
    ("backend_diff", |input| drop(operations(&mut Simulated::new(), input))),
    ("raft_step", |input| assert!(raft_step(input).committed > 0)),
    ("config_change", |input| assert!(config_change(input).committed > 0)),
    ("snapshot_stream", |input| assert!(snapshot_stream(input).crashes < 10_000)),
];

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let directory = format!("{}/fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    let mut files: Vec<(String, Vec<u8>)> = std::fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{directory}: {error}"))
        .map(|entry| entry.expect("the directory can be read").path())
        .map(|path| (path.display().to_string(), std::fs::read(&path).expect("the file can be read")))
        .collect();
    files.sort();
    files
}

fn mutated(input: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..1 + random.below(4) {
        let at = random.below(bytes.len() as u64) as usize;
        match random.below(5) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = *random.pick(&[0, 1, 0x7f, 0x80, 0xff]),
            2 => bytes.truncate(at.max(8)),
            3 => {
                let length = random.below(9).min((bytes.len() - at) as u64) as usize;
                bytes[at..at + length].fill(*random.pick(&[0, 0xff]));
            }
            _ => bytes[at] = random.next_u64() as u8,
        }
    }
    bytes
}

/// Each member of the corpora, and so many mutations of each corpus.
fn mutate(mutations: u64, seed: u64) {
    for (target, run) in TARGETS {
        let corpus = corpus(target);
        assert!(corpus.len() >= 3, "{target} has a corpus");
        let mut random = Random::seeded(seed);
        for (name, input) in &corpus {
            run(input);
            // A history ends with a calm of hundreds of ticks.
            let fewer = if matches!(target, "raft_step" | "config_change") { 10 } else { 1 };
            for round in 0..(mutations / fewer).div_ceil(corpus.len() as u64) {
                let input = mutated(input, &mut random);
                let panicked = std::panic::catch_unwind(|| run(&input));
                assert!(panicked.is_ok(), "{target}: round {round} from {name}: {input:02x?}");
            }
        }
    }
}

#[test]
fn the_targets_take_their_corpus_and_its_mutations() {
    mutate(2_000, 17);
}

#[test]
#[ignore = "minutes: two hundred thousand mutations of each corpus"]
fn the_targets_take_very_many_mutations() {
    mutate(200_000, 18);
}

/// The log that corpora are made of opens, so that the targets go all the way.
#[test]
fn a_log_of_the_corpus_opens() {
    let disk = SimDisk::new();
    super::plant(&disk, &whole_log(), super::name);
    let (log, _) = Log::open(&disk.files(), options(identity()), Default::default(), 1).expect("it is intact");
    assert_eq!(log.group(GroupId(0)).map(|group| group.last.index), Some(Index(7)));
}

/// Inputs of the fuzzer's kind do what the target is for: not one of ten lives of a log is empty.
#[test]
fn random_bytes_crash_logs_with_something_in_them() {
    let mut sum = Done::default();
    for seed in 0..200 {
        let done = wal_ops_crash(&choices(seed, 600));
        sum.crashes += done.crashes;
        sum.interrupted += done.interrupted;
        sum.poisoned += done.poisoned;
        sum.acknowledged += done.acknowledged;
        sum.segments += done.segments;
        sum.by_seals += done.by_seals;
    }
    println!("{sum:?}");
    assert!(sum.crashes > 1_000 && sum.interrupted > 100 && sum.poisoned > 100, "{sum:?}");
    assert!(sum.acknowledged > 1_000 && sum.segments > 300 && sum.by_seals > 400, "{sum:?}");
}

/// Inputs of the fuzzer's kind bring snapshots through bad chunks, failures and cuts.
#[test]
fn random_bytes_bring_snapshots() {
    let mut sum = Transferred::default();
    for seed in 0..300 {
        let done = snapshot_stream(&choices(seed, 400));
        sum.arrived += done.arrived;
        sum.refused += done.refused;
        sum.crashes += done.crashes;
        sum.failures += done.failures;
        sum.manifests += done.manifests;
        sum.states += done.states;
    }
    println!("{sum:?}");
    assert!(sum.arrived > 1_000 && sum.refused > 1_000 && sum.crashes > 500 && sum.failures > 100, "{sum:?}");
    assert!(sum.manifests > 30 && sum.states > 30, "{sum:?}");
}

/// Inputs of the fuzzer's kind elect, commit, crash, read and change members.
#[test]
fn random_bytes_make_histories_of_clusters() {
    let mut sum = History::default();
    for seed in 0..100 {
        for done in [raft_step(&choices(seed, 600)), config_change(&choices(seed, 600))] {
            sum.committed += done.committed;
            sum.crashes += done.crashes;
            sum.reads += done.reads;
            sum.changes += done.changes;
            sum.term += done.term;
            sum.treason += done.treason;
        }
    }
    println!("{sum:?}");
    assert!(sum.committed > 2_000 && sum.crashes > 1_000 && sum.reads > 200, "{sum:?}");
    assert!(sum.changes > 20 && sum.term > 400, "{sum:?}");
}

/// The same of inputs of which each has copies of nodes that are lied to.
#[test]
fn random_bytes_lie_to_copies_of_nodes() {
    let mut sum = Treason::default();
    for seed in 0..200 {
        let mut input = choices(seed, 600);
        input[1] |= 0xc0;
        sum += raft_step(&input).treason;
    }
    println!("{sum:?}");
    assert!(sum.victims > 500 && sum.heard > 5_000 && sum.contradicted > 1_000, "{sum:?}");
    assert!(sum.expected > 500 && sum.strangers > 100 && sum.installed > 10, "{sum:?}");
}

/// Each in one of the first two hundred histories.
#[test]
fn random_histories_find_bugs_of_the_core() {
    let bugs = [
        Mutant::VoteNotFlushed,
        Mutant::SecondVote,
        Mutant::CommitOfOldTerm,
        Mutant::CommitBeyondMatch,
        Mutant::JointUsesOneHalf,
    ];
    for bug in bugs {
        let breaks = |seed: &u64| {
            let input = choices(*seed, 600);
            let histories = || (raft_step(&input), config_change(&input));
            mutant::with(bug, || std::panic::catch_unwind(histories)).is_err()
        };
        let seed = (0..200).find(breaks).unwrap_or_else(|| panic!("{} is not found", bug.name()));
        println!("{}: {} seeds", bug.name(), seed + 1);
    }
}

#[test]
#[ignore = "minutes: eighty thousand histories"]
fn very_many_random_bytes_keep_the_rules_of_the_protocol() {
    for seed in 1_000..41_000 {
        let panicked =
            std::panic::catch_unwind(|| (raft_step(&choices(seed, 1_000)), config_change(&choices(seed, 1_000))));
        assert!(panicked.is_ok(), "seed {seed}");
    }
}

#[test]
#[ignore = "minutes: forty thousand inputs"]
fn very_many_random_bytes_lose_nothing() {
    for seed in 1_000..41_000 {
        let panicked = std::panic::catch_unwind(|| wal_ops_crash(&choices(seed, 1_000)));
        assert!(panicked.is_ok(), "seed {seed}");
    }
}

fn choices(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    Random::seeded(seed).fill(&mut bytes);
    bytes
}

/// The members of the corpora that are made, by target and name: a whole log, one that is cut off, one with damage,
/// each beside superblocks; and bytes that choose operations.
fn made() -> Vec<(&'static str, String, Vec<u8>)> {
    let whole = whole_log();
    let cut = whole[..whole.len() - 700].to_vec();
    let mut good = whole.clone();
    pieces(&mut good, |flags| *flags = 1);
    let one: Vec<u8> = whole.iter().copied().take(1500).collect();
    let mut all = Vec::new();
    all.extend(directories_with_superblocks().1.into_iter().map(|(name, input)| ("wal_recover_dir", name, input)));
    for (target, inputs) in [("wal_decode", [&one, &cut, &good]), ("wal_recover_dir", [&whole, &cut, &good])] {
        let named = ["whole", "cut", "good"].iter().zip(inputs);
        all.extend(named.map(|(name, input)| (target, (*name).to_owned(), input.clone())));
    }
    for target in ["wal_ops_crash", "backend_diff", "raft_step", "config_change", "snapshot_stream"] {
        let named = [("short", 60), ("middle", 300), ("long", 1200)].into_iter();
        all.extend(named.map(|(name, length)| (target, name.to_owned(), choices(length, length as usize))));
    }
    all
}

/// A log of an older layout is refused at its head, and whatever grows from it goes no further. `TRILITH_CORPUS_OUT`
/// says where the members are to be written anew.
#[test]
fn the_corpora_are_of_this_program() {
    let out = std::env::var("TRILITH_CORPUS_OUT").ok();
    for (target, name, input) in made() {
        if let Some(out) = &out {
            std::fs::write(format!("{out}/{target}/{name}"), &input).expect("the path can be written");
        }
        let path = format!("{}/fuzz/corpus/{target}/{name}", env!("CARGO_MANIFEST_DIR"));
        let committed = std::fs::read(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(committed == input, "{path} is of another program: write it anew with TRILITH_CORPUS_OUT=fuzz/corpus");
    }
}

/// The log of the corpus beside a superblock that knows nothing of it, or all but its last frame, or all; each
/// opened whole and by its seals.
fn directories_with_superblocks() -> (Place, Vec<(String, Vec<u8>)>) {
    let disk = SimDisk::new();
    super::plant(&disk, &whole_log(), super::name);
    let (log, _) = Log::open(&disk.files(), options(identity()), Default::default(), 1).expect("it is intact");
    let end = log.durable_end();
    let before = Place { frame: FrameNumber(end.frame.0 - 1), offset: end.offset - 4096, ..end };
    let mut inputs = Vec::new();
    for (known, durable_end) in [("empty", Place::START), ("before", before), ("all", end)] {
        let own = identity();
        let mut state = superblock::State::new(own.cluster, own.node, own.incarnation, Default::default());
        state.durable_end = durable_end;
        let disk = SimDisk::new();
        superblock::format(&disk.files(), &state).expect("the disk is empty and well");
        let mut input = whole_log();
        as_pieces(&mut input, 10, &disk.contents(superblock::FILE_NAME));
        inputs.push((format!("superblock_{known}"), input.clone()));
        pieces(&mut input, |flags| *flags = 3);
        inputs.push((format!("superblock_{known}_by_seals"), input));
    }
    (end, inputs)
}

#[test]
fn directories_with_superblocks_open_and_what_the_superblock_knows_is_missed() {
    let (end, inputs) = directories_with_superblocks();
    for (name, input) in inputs {
        wal_recover_dir(&input);
        let disk = SimDisk::new();
        super::plant(&disk, &input, super::name);
        let evidence = super::evidence(&disk);
        assert_eq!(evidence > Place::START, !name.contains("empty"), "{name}");
        // Without the last two frames, whoever knows of them misses them.
        disk.zero(&super::name(end.segment.0 as u8 - 1), end.offset - 8192..61_440);
        let opened = Log::open(&disk.files(), options(identity()), evidence, 1);
        assert_eq!(opened.is_err(), evidence > Place::START, "{name}");
    }
}

fn pieces(input: &mut [u8], mut each: impl FnMut(&mut u8)) {
    let mut at = 0;
    while at + 5 <= input.len() {
        each(&mut input[at + 2]);
        at += 5 + usize::from(u16::from_le_bytes([input[at + 3], input[at + 4]]));
    }
}

/// Two segments with all kinds of frames, as pieces.
fn whole_log() -> Vec<u8> {
    let disk = SimDisk::new();
    let mut log = Log::create(&disk.files(), options(identity()), 1).expect("the disk is empty and well");
    let mut queue = disk.queue();
    for index in 1..=7 {
        let bytes = if index == 4 { 600 } else { 30 };
        let data = Data::new(bytes::Bytes::from(vec![0x40 | index as u8; bytes]));
        let entry = Entry { id: LogId::new(Term(1 + index / 3), Index(index)), payload: Payload::Data(data) };
        log.append(GroupId(0), &[entry]).expect("it fits");
        for _ in 0..20 {
            carry_out(&disk, &mut queue, &mut log);
            log.tick(1);
        }
    }
    let mut out = Vec::new();
    for file in 0..2u8 {
        as_pieces(&mut out, file, &disk.contents(&super::name(file)));
    }
    out
}

fn as_pieces(out: &mut Vec<u8>, file: u8, content: &[u8]) {
    for (block, bytes) in content.chunks(4096).enumerate() {
        let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
        // A superblock's checksum is made good: it lies at the end of its block.
        let is_superblock = file == 10;
        let used = if is_superblock { used.min(512) } else { used };
        if used > 0 {
            out.extend([file, block as u8, u8::from(is_superblock)]);
            out.extend((used as u16).to_le_bytes());
            out.extend(&bytes[..used]);
        }
    }
}
