//! A repair of the blocks that is cut off in its middle.

use super::*;
use crate::random::Random;
use crate::sim::disk::SimDisk;

const BLOCK: u64 = BLOCK_BYTES as u64;

/// The power goes at each operation: the state is the one that was, and to go on mends it.
#[test]
fn a_mend_that_is_cut_off_leaves_the_state_that_was() {
    let disk = SimDisk::new();
    format(&disk.files(), &state(4)).unwrap();
    let mut random = Random::seeded(11);
    let mut cases = 0;
    for damaged in [0..1, 1..2, 2..3, 3..4, 0..2, 2..4] {
        let broken = disk.fork();
        broken.zero(FILE_NAME, damaged.start * BLOCK..damaged.end * BLOCK);
        let whole = broken.fork();
        let before = whole.operations();
        assert!(mend(&whole.files()).unwrap());
        for at in 0..whole.operations() - before {
            for _ in 0..8 {
                let fork = broken.fork();
                fork.crash_at(fork.operations() + at);
                // Whether it says so depends on whether it was writing.
                let _told = mend(&fork.files());
                assert!(fork.is_off(), "{damaged:?} cut at {at}");
                fork.crash(&mut random);
                assert_eq!(inspect(&fork.files()).unwrap().state, state(4), "{damaged:?} cut at {at}");
                mend(&fork.files()).unwrap();
                let found = inspect(&fork.files()).unwrap();
                assert!(found.found.are_intact() && found.state == state(4), "{damaged:?} cut at {at}");
                cases += 1;
            }
        }
    }
    assert!(cases > 200, "{cases}");
}
