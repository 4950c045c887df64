//! What a client makes of what it knows, by itself.

use super::*;
use crate::sim::Options;

/// A client that gives up, with a session, and with commands under these numbers; the last number given is 9.
fn impatient(numbers: &[u64]) -> Client {
    let options = Options::drawn_for(3, 1).with_impatient_clients(1).clients;
    let mut client = Client::new(0, 3, options, (Random::seeded(2), Random::seeded(3)));
    (client.session, client.last_number) = (Some(SessionId(5)), 9);
    let sent = |number: &u64| (*number, Sent::new(*number, Service::Append, Bytes::new(), None));
    client.unanswered = numbers.iter().map(sent).collect();
    client
}

#[test]
fn a_number_is_free_up_to_the_last_one_that_is_done() {
    assert_eq!(impatient(&[7, 8, 9]).count_free(), 3);
    assert_eq!(impatient(&[5, 6, 8, 9]).count_free(), 2);
    assert_eq!(impatient(&[7, 8]).count_free(), 0, "the last one is done");
}
