use bytes::Bytes;

use super::load::State;

#[test]
fn what_is_changed_lies_all_over_the_state() {
    let state = State::of(1 << 30, 128);
    assert_eq!((state.still, state.changed), (262_144, 65_536));
    assert_eq!(state.changed_key(1), Bytes::from("state/0000000004/changed"));
    assert_eq!(state.changed_key(65_535), Bytes::from("state/0000262140/changed"));
    let small = State::of(1 << 20, 128);
    assert_eq!((small.still, small.changed), (256, 256));
    assert!(state.growth_bytes_max() < state.bytes / 8, "a second copy of the state is seen");
}
