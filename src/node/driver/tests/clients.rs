//! A client that goes away leaves nothing behind.

use super::rig::{CLIENT, Rig, scan};
use crate::net::{ClientKey, Consistency};
use crate::node::driver::Input;
use crate::types::Index;

const OTHER: ClientKey = ClientKey(8);

#[test]
fn what_waits_for_a_client_goes_with_it_and_nothing_of_another() {
    let mut rig = Rig::leading();
    let far = Consistency::AtLeast(Index(1000));
    for client in [CLIENT, OTHER, CLIENT] {
        rig.request(client, scan(far));
    }
    rig.settle();
    assert_eq!(rig.driver.reads.len(), 3, "they wait for entries that are not there");
    rig.driver.handle(Input::ClientGone { client: CLIENT });
    rig.settle();
    assert_eq!(rig.driver.reads.len(), 1, "those of the client that is gone are free");
    rig.append(1000, 1);
    assert_eq!((rig.answers_to(CLIENT).len(), rig.answers_to(OTHER).len()), (0, 1));
}

#[test]
fn a_read_that_the_protocol_still_has_is_dropped_when_it_comes_back() {
    let mut rig = Rig::leading();
    rig.request(CLIENT, scan(Consistency::Linearizable));
    rig.request(OTHER, scan(Consistency::Linearizable));
    rig.driver.handle(Input::ClientGone { client: CLIENT });
    rig.settle();
    assert_eq!(rig.driver.reads.len(), 0);
    assert_eq!((rig.answers_to(CLIENT).len(), rig.answers_to(OTHER).len()), (0, 1));
}
