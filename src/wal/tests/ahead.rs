//! What a reader of a map asks for before it touches it.

use crate::wal::ahead::Ahead;

const LIMIT: u64 = 60 << 20;

#[test]
fn nothing_is_asked_for_twice_and_nothing_behind_the_end() {
    let mut ahead = Ahead::new(200_000);
    assert_eq!(ahead.reach(8192, None), Some(8192..131_072));
    assert_eq!(ahead.reach(126_976, None), None);
    assert_eq!(ahead.expect(100_000..140_000), Some(131_072..196_608));
    assert_eq!(ahead.expect(9_000..130_000), None);
    assert_eq!(ahead.expect(190_000..300_000), Some(196_608..200_000));
    assert_eq!(ahead.reach(196_608, Some(1 << 20)), None);
}

/// Who looks for a frame asks for more each time; who has found it, for what is wanted.
#[test]
fn steps_grow_to_a_bound() {
    let mut ahead = Ahead::new(LIMIT);
    let (mut at, mut steps) = (8192, 0);
    while at < LIMIT {
        let asked = ahead.reach(at, None).expect("the last step ends here");
        assert!(asked.start == at && asked.end - at < (1 << 20) + (64 << 10));
        (at, steps) = (asked.end, steps + 1);
    }
    assert!(steps < 70, "{steps}");
    for (wanted, end) in [(1, 128 << 10), (300_000, 320 << 10), (u64::MAX, (1 << 20) + (64 << 10))] {
        assert_eq!(Ahead::new(LIMIT).reach(8192, Some(wanted)), Some(8192..end));
    }
}
