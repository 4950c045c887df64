//! What a member was offered, or asks for, and for how long that is kept. What is kept of the log for it: `purging.rs`.

use super::purging::{fill, id, leading, snapshot};
use super::rig::{OTHER, OWN, Rig};
use crate::machine::Map;
use crate::node::driver::{FollowerTail, Input};
use crate::raft::{Base, Body, Message, Round, Sender};
use crate::types::{Incarnation, LogId, Term};

/// It was offered that by an earlier leader, or begins with a newer one: what it asks for stays, whatever was offered. An
/// older one gives it no more time.
#[test]
fn what_a_member_asks_for_stays_while_it_fetches_it() {
    let mut rig = leading(FollowerTail { bytes: 0, milliseconds: 20_000 });
    let older = snapshot(&mut rig);
    fill(&mut rig, 1);
    let newest = snapshot(&mut rig);
    let base = Base { point: newest, begin_after: LogId::ZERO };
    let body = Body::Snapshot { base, round: Round(0) };
    let message = Message { from: OWN, to: OTHER, term: Term(1), body };
    let asks = |rig: &mut Rig<Map>, point| rig.driver.handle(Input::SnapshotAsked { node: OTHER, point });
    asks(&mut rig, older);
    assert_eq!(rig.driver.offers.points(), [], "it is offered nothing");
    rig.driver.offers.note(&message);
    for (asked, kept) in [(LogId::new(Term(9), older.index), newest), (older, older), (newest, newest), (older, older)]
    {
        asks(&mut rig, asked);
        assert_eq!(rig.driver.offers.points(), [kept]);
    }
    assert_eq!(rig.driver.offers.needed_behind(), Some(older.index));
    for _ in 0..1_999 {
        rig.driver.offers.tick(20_000);
        rig.driver.offers.note(&message);
        asks(&mut rig, older);
    }
    assert_eq!(rig.driver.offers.points(), [older]);
    rig.driver.offers.tick(20_000);
    rig.driver.offers.tick(20_000);
    assert_eq!(rig.driver.offers.points(), []);
    // Offered and asked for again it gets no more time; what is newer has its own.
    fill(&mut rig, 1);
    let offer = |rig: &mut Rig<Map>, point| {
        let body = Body::Snapshot { base: Base { point, begin_after: LogId::ZERO }, round: Round(0) };
        rig.driver.offers.note(&Message { body, ..message.clone() });
    };
    let (next, last) = (LogId::new(newest.term, newest.index.next()), rig.driver.replica().status().last);
    let cases = [
        (newest, older, None),
        (newest, newest, None),
        (last, older, Some(last)),
        (newest, newest, Some(last)),
        (last, next, Some(next)),
    ];
    for (offered, asked, kept) in cases {
        offer(&mut rig, offered);
        asks(&mut rig, asked);
        assert_eq!(rig.driver.offers.points(), Vec::from_iter(kept), "offered {offered}, asked for {asked}");
    }
    // Who needed nothing for long lags anew.
    (0..1_001).for_each(|_| rig.driver.offers.tick(20_000));
    offer(&mut rig, newest);
    asks(&mut rig, older);
    assert_eq!(rig.driver.offers.points(), [older]);
}

/// A process that begins anew goes by the next offer, which is of the newest: that is what stays for it.
#[test]
fn what_a_member_was_offered_is_forgotten_when_it_is_started_anew() {
    let mut rig = leading(FollowerTail { bytes: 0, milliseconds: 60_000 });
    let offer = |rig: &mut Rig<Map>, index: u64| {
        let base = Base { point: id(index), begin_after: id(3) };
        let message = Message { from: OWN, to: OTHER, term: Term(1), body: Body::Snapshot { base, round: Round(0) } };
        rig.driver.offers.note(&message);
        rig.driver.offers.points()
    };
    assert_eq!(offer(&mut rig, 5), [id(5)]);
    assert_eq!(offer(&mut rig, 9), [id(5)], "it goes on with the first");
    for (boot, then) in [(1, id(5)), (2, id(11))] {
        let sender = Sender { incarnation: Incarnation(OTHER.0), boot, configuration: LogId::ZERO };
        rig.driver.handle(Input::Met { node: OTHER, sender });
        rig.settle();
        assert_eq!(offer(&mut rig, 11), [then], "start {boot}");
    }
}
