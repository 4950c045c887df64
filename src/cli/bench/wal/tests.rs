use std::time::Duration;

use super::load::Shown;

#[test]
fn the_bar_moves_with_what_ends_the_run() {
    let mut shown = Shown::new(Duration::MAX, Some(1000), 50);
    assert_eq!(shown.bar.length(), Some(1000));
    shown.refresh(Duration::from_secs(1), 300);
    assert_eq!(shown.bar.position(), 250, "records");

    let mut shown = Shown::new(Duration::from_secs(5), None, 50);
    assert_eq!(shown.bar.length(), Some(5000));
    shown.refresh(Duration::from_secs(1), 300);
    assert_eq!(shown.bar.position(), 1000, "milliseconds");
}
