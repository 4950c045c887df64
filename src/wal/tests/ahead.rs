//! What a reader of a map asks for before it touches it.

use crate::wal::ahead::Ahead;

const LIMIT: u64 = 60 << 20;

#[test]
fn nothing_is_asked_for_twice_and_nothing_behind_the_end() {
    let mut ahead = Ahead::new(100_000);
    assert_eq!(ahead.reach(8192, None), Some(8192..24_576));
    assert_eq!(ahead.reach(12_288, None), None);
    assert_eq!(ahead.expect(10_000..30_000), Some(24_576..30_000));
    assert_eq!(ahead.expect(9_000..30_000), None);
    assert_eq!(ahead.expect(90_000..200_000), Some(90_000..100_000));
    assert_eq!(ahead.reach(98_304, Some(1 << 20)), None);
}

/// Who looks for a frame asks for more each time; who has found it, for what is wanted.
#[test]
fn steps_grow_to_a_bound() {
    let mut ahead = Ahead::new(LIMIT);
    let (mut at, mut steps) = (8192, 0);
    while at < LIMIT {
        let asked = ahead.reach(at, None).expect("the last step ends here");
        assert!(asked.start == at && asked.end - at <= 1 << 20);
        (at, steps) = (asked.end, steps + 1);
    }
    assert!(steps < 70, "{steps}");
    for (wanted, expected) in [(1, 16 << 10), (300_000, 300_000), (u64::MAX, 1 << 20)] {
        assert_eq!(Ahead::new(LIMIT).reach(8192, Some(wanted)), Some(8192..8192 + expected));
    }
}
