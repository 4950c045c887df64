//! The threads around a driver.

use std::sync::mpsc::Receiver;
use std::time::Duration;

use super::*;

/// A read that ends when somebody says so.
fn gated(gate: Receiver<()>) -> Result<Vec<Entry>, wal::Error> {
    gate.recv().expect("the test opens it");
    Ok(Vec::new())
}

#[test]
fn a_client_whose_read_hangs_does_not_hold_up_what_the_cluster_reads() {
    let (results, done) = channel();
    let mut readers = Readers::start(&results, &Arc::new(Notify::new()), gated).unwrap();
    let (open_slow, slow) = channel();
    let (open_quick, quick) = channel();
    readers.order(ReadNumber(1), slow, true);
    open_quick.send(()).unwrap();
    readers.order(ReadNumber(2), quick, false);
    let first = done.recv_timeout(Duration::from_secs(5));
    // Before anything is judged, so that no thread is left waiting.
    open_slow.send(()).unwrap();
    assert!(matches!(first, Ok(Input::ReadDone { read: ReadNumber(2), .. })), "{first:?}");
    let second = done.recv_timeout(Duration::from_secs(5));
    assert!(matches!(second, Ok(Input::ReadDone { read: ReadNumber(1), .. })), "{second:?}");
}
