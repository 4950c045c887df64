//! Every state of the four blocks, and every crash while they are brought into order.

use std::cmp::Ordering;

use super::super::recovery::{Agreement, PairIs, Situation, TABLE};
use super::*;

/// What became of one block of a file in which `old` was followed by `new`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Is {
    Old,
    New,
    Torn,
    Unreadable,
}

const KINDS: [Is; 4] = [Is::Old, Is::New, Is::Torn, Is::Unreadable];
const OLD_AGE: u64 = 4;
const NEW_AGE: u64 = 5;

/// All 256.
fn states() -> impl Iterator<Item = [Is; BLOCKS]> {
    (0..256usize).map(|code| std::array::from_fn(|block| KINDS[code >> (2 * block) & 3]))
}

fn disk_with(blocks: [Is; BLOCKS]) -> FakeFiles {
    let (old, new) = (copy(20, OLD_AGE), copy(21, NEW_AGE));
    let mut bytes = file(blocks.map(|is| if is == Is::New { &new } else { &old }));
    for (block, _) in blocks.iter().enumerate().filter(|(_, is)| **is == Is::Torn) {
        // The front half is the new copy's, the rest the old one's.
        let at = block * BLOCK_BYTES;
        bytes[at..at + BLOCK_BYTES / 2].copy_from_slice(&encode(block, &new)[..BLOCK_BYTES / 2]);
    }
    let files = disk(bytes);
    for (block, _) in blocks.iter().enumerate().filter(|(_, is)| **is == Is::Unreadable) {
        files.make_unreadable(block as u64);
    }
    files
}

fn is_whole(pair: &[Is]) -> bool {
    pair[0] == pair[1] && matches!(pair[0], Is::Old | Is::New)
}

fn is_usable(blocks: &[Is; BLOCKS]) -> bool {
    is_whole(&blocks[..2]) || is_whole(&blocks[2..])
}

#[test]
fn the_table_has_exactly_one_row_for_each_situation() {
    let pairs = [PairIs::Whole, PairIs::Split, PairIs::Lost];
    let mut situations = 0;
    for agreement in [Agreement::Consistent, Agreement::Contradictory, Agreement::Newer] {
        for a in pairs {
            for b in pairs {
                for a_to_b in [Ordering::Less, Ordering::Equal, Ordering::Greater] {
                    let situation = Situation { agreement, a, b, a_to_b };
                    let rows = TABLE.iter().filter(|row| row.fits(&situation)).count();
                    assert_eq!(rows, 1, "{situation:?}");
                    situations += 1;
                }
            }
        }
    }
    assert_eq!(situations, 81);
}

/// The expectation is made here, from the rules in design.md §5, without a look at the table.
#[test]
fn every_state_of_the_four_blocks() {
    let mut usable_states = 0;
    for blocks in states() {
        let result = load(&disk_with(blocks), 0);
        if !is_usable(&blocks) {
            let error = result.expect_err("nothing to be trusted");
            assert!(matches!(error, Error::Damaged { .. }), "{blocks:?}: {error}");
            assert_eq!(error.has_read_error(), blocks.contains(&Is::Unreadable));
            continue;
        }
        usable_states += 1;
        let expected = if blocks.contains(&Is::New) { NEW_AGE } else { OLD_AGE };
        assert_eq!(result.unwrap().state, State { boot: 1, ..state(expected) }, "{blocks:?}");
    }
    assert_eq!(usable_states, 2 * 2 * 16 - 2 * 2);
}

/// Whatever was spoken, and whatever then became of the blocks: it is there, or the node is told that it has no
/// voice. While the new copy is being written the old one was spoken, and the other pair still has it; once the new
/// copy was spoken no block holds the old one any more.
#[test]
fn what_was_spoken_is_never_lost() {
    let (mut old_spoken, mut new_spoken) = (0, 0);
    for blocks in states() {
        let found = load(&disk_with(blocks), 0).ok().map(|loaded| age(&loaded.state));
        assert!(found.is_none_or(|age| age >= OLD_AGE));
        old_spoken += 1;
        if !blocks.contains(&Is::Old) {
            assert!(found.is_none_or(|age| age == NEW_AGE), "{blocks:?}");
            new_spoken += 1;
        }
    }
    assert_eq!((old_spoken, new_spoken), (256, 81));
}

/// A start that is cut off at each of its operations, with each of several ways in which the cut can tear what was
/// not flushed, and the start after that.
#[test]
fn a_start_may_be_cut_off_at_any_operation() {
    let mut cuts = 0;
    for blocks in states().filter(is_usable) {
        let whole = disk_with(blocks);
        load(&whole, 0).unwrap();
        for operations in 0..whole.operations() {
            for pattern in 0..SURVIVAL_PATTERNS {
                let files = disk_with(blocks);
                files.cut_after(operations);
                assert!(load(&files, 0).is_err());
                let files = files.after_cut(false, |sector| survives(pattern, sector));
                let loaded = load(&files, 0).unwrap_or_else(|error| panic!("{blocks:?} {operations}: {error}"));
                let spoken_may_be_new = !blocks.contains(&Is::Old);
                assert!(!spoken_may_be_new || age(&loaded.state) == NEW_AGE, "{blocks:?} {operations} {pattern}");
                assert!(age(&loaded.state) >= OLD_AGE && loaded.state.boot >= 1);
                // What this start spoke of stays, whatever becomes of what it had not flushed.
                let last = files.after_cut(false, |_| false);
                let again = load(&last, 0).unwrap();
                assert_eq!(again.state, State { boot: loaded.state.boot + 1, ..loaded.state });
                assert!(again.found.0.iter().all(|condition| *condition == again.found.0[0]));
                cuts += 1;
            }
        }
    }
    // Seven or five operations that change the disk: B is written twice, or once.
    assert!((60 * 5 * SURVIVAL_PATTERNS..60 * 7 * SURVIVAL_PATTERNS).contains(&cuts), "{cuts}");
}

const SURVIVAL_PATTERNS: usize = 6;

fn survives(pattern: usize, sector: usize) -> bool {
    match pattern {
        0 => false,
        1 => true,
        2 => sector == 0,
        3 => sector > 0,
        4 => sector.is_multiple_of(2),
        _ => !sector.is_multiple_of(2),
    }
}

/// A read error that comes and goes hides the copy of a save that was under way; the start that did not see it is
/// cut off when it has written one block. No two contents may then claim one copy number.
#[test]
fn a_read_error_that_comes_and_goes_makes_no_contradiction() {
    for hidden in 0..2 {
        let mut blocks = [Is::Torn, Is::Torn, Is::Old, Is::Old];
        blocks[hidden] = Is::New;
        let files = disk_with(blocks);
        files.make_unreadable(hidden as u64);
        files.cut_after(2);
        assert!(load(&files, 0).is_err());
        let with_both = files.bytes(FILE_NAME);
        let mut bytes = disk_with(blocks).bytes(FILE_NAME);
        let other = (1 - hidden) * BLOCK_BYTES..(2 - hidden) * BLOCK_BYTES;
        bytes[other.clone()].copy_from_slice(&with_both[other]);
        let loaded = load(&disk(bytes), 0).unwrap();
        assert_eq!(age(&loaded.state), OLD_AGE, "the start's own copy is the higher one");
    }
}

#[test]
fn copies_that_contradict_each_other_are_damage() {
    let stranger = |number| {
        let mut stranger = copy(number, OLD_AGE);
        stranger.state.incarnation = Incarnation(1);
        stranger
    };
    let twin = copy(20, NEW_AGE);
    for other in [stranger(19), stranger(20), stranger(21), twin] {
        let mine = copy(20, OLD_AGE);
        for blocks in [[&mine, &mine, &other, &other], [&mine, &mine, &mine, &other], [&other, &mine, &mine, &mine]] {
            assert!(matches!(load(&disk(file(blocks)), 0), Err(Error::Damaged { .. })));
        }
    }
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    for newer in 0..BLOCKS {
        let mut bytes = file([&copy(20, OLD_AGE); BLOCKS]);
        let block = &mut bytes[newer * BLOCK_BYTES..(newer + 1) * BLOCK_BYTES];
        block[8] = 9;
        let checksum = crate::checksum::Checksum::of(&block[..4092]);
        block[4092..].copy_from_slice(&checksum.0.to_le_bytes());
        let files = disk(bytes.clone());
        assert!(matches!(load(&files, 0), Err(Error::NewerFormat { found: 9 })));
        assert_eq!(files.bytes(FILE_NAME), bytes);
    }
}

#[test]
fn a_flush_that_fails_at_start_is_an_error() {
    let files = disk_with([Is::Old; BLOCKS]);
    files.fail_syncs();
    assert!(matches!(load(&files, 0), Err(Error::Disk(_))));
}
