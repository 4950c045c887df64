//! A leader of three whose next segment does not come: the disk hangs while it is made.

use super::rig::{CLIENT, CLUSTER, OTHER, OWN, Rig, agreeing, data, options};
use crate::machine::Map;
use crate::net::{Refusal, RequestBody, ResponseBody};
use crate::node::driver::{self, Input};
use crate::raft::{Body, Message, Role, Sender};
use crate::sim::disk::SimDisk;
use crate::superblock::State;
use crate::types::{Incarnation, LogId, Member, Membership, NodeId, Service};

const THIRD: NodeId = NodeId(3);
const SEGMENT_BYTES: u64 = 256 << 10;
const RECORD_BYTES: usize = 40 << 10;

/// Both others acknowledge everything, and vote for this node.
struct Three {
    rig: Rig<Map>,
    asked_to_stand: Vec<NodeId>,
}

impl Three {
    /// It leads, and has a session.
    fn led() -> Three {
        let member = |id: NodeId| Member {
            id,
            incarnation: Incarnation(id.0),
            address: std::net::SocketAddr::from(([127, 0, 0, 1], id.0 as u16)),
        };
        let voters = [OWN, OTHER, THIRD];
        let membership =
            Membership { members: voters.map(member).into(), voters: voters.into(), ..Membership::default() };
        let disk = SimDisk::new();
        let state = State::new(CLUSTER, OWN, Incarnation(1), membership);
        driver::format(&disk.files(), &state, SEGMENT_BYTES, 3, 0).unwrap();
        let options = driver::Options { segment_bytes: SEGMENT_BYTES, ..options() };
        let mut three = Three { rig: Rig::with_options(disk, Map::new(), options), asked_to_stand: Vec::new() };
        three.rig.driver.handle(Input::Met { node: THIRD, sender: sender(THIRD) });
        three.run(200);
        assert_eq!(three.rig.driver.replica().role(), Role::Leader);
        let registration = data(Service::Register, three.rig.session, (0, 0), &[]);
        let id = three.rig.request(CLIENT, RequestBody::Submit { commands: vec![registration] });
        three.run(1);
        let Some(ResponseBody::Submitted { results }) = three.answer(id) else { panic!("no session") };
        let crate::net::SubmitResult::Run { first, .. } = results[0] else { panic!("{results:?}") };
        three.rig.session = crate::types::SessionId(first.0);
        three
    }

    fn answer(&self, id: u64) -> Option<ResponseBody> {
        self.rig.replies.iter().find(|(_, response)| response.id == id).map(|(_, response)| response.body.clone())
    }

    fn run(&mut self, ticks: usize) {
        for _ in 0..ticks {
            self.rig.tick();
            loop {
                self.rig.settle();
                let sent = std::mem::take(&mut self.rig.sent);
                if sent.is_empty() {
                    break;
                }
                sent.into_iter().for_each(|message| self.arrives(message));
            }
        }
    }

    fn prepare_what_is_held(&mut self) {
        for order in std::mem::take(&mut self.rig.preparations) {
            let result = crate::wal::prepare(&self.rig.files, &order);
            self.rig.driver.handle(Input::Prepared { number: order.header.number, result });
        }
    }

    fn arrives(&mut self, Message { to, term, body, .. }: Message) {
        if matches!(body, Body::StandNow) {
            return self.asked_to_stand.push(to);
        }
        let Some(body) = agreeing(body) else { return };
        let message = Message { from: to, to: OWN, term, body };
        self.rig.driver.handle(Input::Peer { sender: sender(to), message });
    }

    /// Hands over records until one waits; gives its request.
    fn until_one_waits(&mut self) -> u64 {
        for number in 1..100 {
            let command = data(Service::Append, self.rig.session, (number, number), &vec![7; RECORD_BYTES]);
            let id = self.rig.request(CLIENT, RequestBody::Submit { commands: vec![command] });
            self.run(1);
            if self.answer(id).is_none() {
                return id;
            }
        }
        panic!("all of it fits what stands ready")
    }
}

fn sender(node: NodeId) -> Sender {
    Sender { incarnation: Incarnation(node.0), boot: 1, configuration: LogId::ZERO }
}

#[test]
fn a_leader_whose_next_segment_hangs_hands_over_before_who_waits_is_told_to_come_again() {
    let mut three = Three::led();
    three.rig.holds_preparations = true;
    let waiting = three.until_one_waits();
    three.run(97);
    assert_eq!((&three.asked_to_stand[..], three.answer(waiting)), (&[][..], None), "it may be slow alone");
    three.run(3);
    assert!(matches!(three.asked_to_stand[..], [OTHER | THIRD, ..]), "{:?}", three.asked_to_stand);
    assert_eq!(three.answer(waiting), None);
    // Nobody takes over: it leads on, asks nobody else for long, and says that it has no room now.
    three.run(100);
    let asked = three.asked_to_stand.len();
    assert_eq!(three.answer(waiting), Some(ResponseBody::Refused(Refusal::Busy)));
    let again = three.until_one_waits();
    three.run(90);
    assert_eq!(three.asked_to_stand.len(), asked, "at most once in ten longest election timeouts");
    // The segment comes.
    three.rig.holds_preparations = false;
    three.prepare_what_is_held();
    three.run(2);
    assert!(matches!(three.answer(again), Some(ResponseBody::Submitted { .. })), "{:?}", three.answer(again));
}

#[test]
fn a_segment_that_is_slow_costs_no_leadership() {
    let mut three = Three::led();
    three.rig.holds_preparations = true;
    let waiting = three.until_one_waits();
    three.run(90);
    three.prepare_what_is_held();
    three.run(150);
    assert!(three.asked_to_stand.is_empty() && three.answer(waiting).is_some());
}
