//! A log that is damaged where a follower needs it: who leads then.

use super::rig::{CLIENT, CLUSTER, OTHER, OWN, Rig, agreeing, data, from_other, options};
use crate::machine::Map;
use crate::net::{RequestBody, ResponseBody, SubmitResult};
use crate::node::driver::{self, Input, LOG_DIRECTORY};
use crate::raft::{AppendOutcome, AppendReply, Body, Message, Role, Round, Sender};
use crate::sim::disk::SimDisk;
use crate::superblock::State;
use crate::types::{Incarnation, Index, LogId, Member, Membership, NodeId, SegmentNumber, Service, SessionId};
use crate::wal;

const LAGGARD: NodeId = NodeId(3);
const SEGMENT_BYTES: u64 = 256 << 10;
const RECORD_BYTES: usize = 16 << 10;

/// This node leads three. The second acknowledges everything, and votes for it if it votes; the third learns, and lags.
struct Three {
    rig: Rig<Map>,
    /// Of the last message that was sent to the third.
    round: Round,
    asked_to_stand: Vec<NodeId>,
    /// The third says nothing.
    is_lost: bool,
    /// Entries that the third was sent.
    brought: usize,
}

impl Three {
    fn led(voters: &[NodeId]) -> Three {
        let member = |id: NodeId| Member {
            id,
            incarnation: Incarnation(id.0),
            address: std::net::SocketAddr::from(([127, 0, 0, 1], id.0 as u16)),
        };
        let membership = Membership {
            members: [OWN, OTHER, LAGGARD].into_iter().map(member).collect(),
            voters: voters.iter().copied().collect(),
            ..Membership::default()
        };
        let disk = SimDisk::new();
        driver::format(&disk.files(), &State::new(CLUSTER, OWN, Incarnation(1), membership), SEGMENT_BYTES, 3, 0)
            .unwrap();
        let options = driver::Options { segment_bytes: SEGMENT_BYTES, ..options() };
        let mut rig = Rig::with_options(disk, Map::new(), options);
        let sender = Sender { incarnation: Incarnation(LAGGARD.0), boot: 1, configuration: LogId::ZERO };
        rig.driver.handle(Input::Met { node: LAGGARD, sender });
        let mut three = Three { rig, round: Round(0), asked_to_stand: Vec::new(), is_lost: false, brought: 0 };
        three.run(200);
        assert_eq!(three.role(), Role::Leader);
        three
    }

    fn role(&self) -> Role {
        self.rig.driver.replica().role()
    }

    fn run(&mut self, ticks: usize) {
        for _ in 0..ticks {
            self.rig.tick();
            self.settle();
        }
    }

    fn settle(&mut self) {
        loop {
            self.rig.settle();
            let sent = std::mem::take(&mut self.rig.sent);
            if sent.is_empty() {
                return;
            }
            sent.into_iter().for_each(|message| self.arrives(message));
        }
    }

    fn arrives(&mut self, Message { to, term, body, .. }: Message) {
        if to == LAGGARD && self.is_lost {
            return;
        }
        if to == LAGGARD {
            return match body {
                Body::Heartbeat { round, .. } => {
                    self.round = round;
                    self.says(term, Body::HeartbeatReply { round });
                }
                Body::Append(append) => {
                    self.round = append.round;
                    self.brought += append.entries.len();
                }
                _ => {}
            };
        }
        if matches!(body, Body::StandNow) {
            return self.asked_to_stand.push(to);
        }
        let Some(body) = agreeing(body) else { return };
        self.rig.driver.handle(from_other(Message { from: OTHER, to: OWN, term, body }));
    }

    /// The third does.
    fn says(&mut self, term: crate::types::Term, body: Body) {
        let sender = Sender { incarnation: Incarnation(LAGGARD.0), boot: 1, configuration: LogId::ZERO };
        let message = Message { from: LAGGARD, to: OWN, term, body };
        self.rig.driver.handle(Input::Peer { sender, message });
    }

    fn ask(&mut self, command: crate::types::Data) -> Index {
        let id = self.rig.request(CLIENT, RequestBody::Submit { commands: vec![command] });
        self.settle();
        let at = self.rig.replies.iter().position(|(_, response)| response.id == id).expect("it is answered");
        let body = self.rig.replies.remove(at).1.body;
        let ResponseBody::Submitted { results } = &body else { panic!("{body:?}") };
        let [SubmitResult::Run { first, .. }] = results[..] else { panic!("{results:?}") };
        first
    }

    /// Several segments of records, of which the first is damaged where the third needs it next.
    fn writes_and_rots(&mut self) {
        let session = SessionId(self.ask(data(Service::Register, SessionId(0), (0, 0), &[])).0);
        for number in 1..60 {
            self.ask(data(Service::Append, session, (number, number), &vec![7; RECORD_BYTES]));
        }
        let first = wal::segment_name(LOG_DIRECTORY, SegmentNumber(1));
        self.rig.disk.fill(&first, 8192..SEGMENT_BYTES - 4096, 0x55);
    }

    /// The third has so much, and is heard to say so.
    fn holds(&mut self, last: Index) {
        let term = self.rig.driver.replica().status().hard_state.term;
        self.says(term, Body::AppendReply(AppendReply { round: self.round, outcome: AppendOutcome::Matched { last } }));
        self.settle();
    }
}

/// It is said in the log alone otherwise, and the follower waits for ever.
#[test]
fn a_leader_that_cannot_read_what_a_follower_needs_hands_over() {
    let mut three = Three::led(&[OWN, OTHER]);
    three.writes_and_rots();
    three.holds(Index(4));
    three.run(50);
    assert_eq!((three.brought, three.asked_to_stand.len()), (0, 0), "it is tried for a second first");
    three.run(60);
    assert_eq!((three.brought, three.asked_to_stand.first()), (0, Some(&OTHER)));
    three.run(30);
    assert_eq!(three.role(), Role::Leader, "nobody stands");
    three.asked_to_stand.clear();
    three.run(2_000);
    assert!(three.asked_to_stand.is_empty(), "once in ten minutes");
}

#[test]
fn for_a_follower_that_is_not_there_nobody_hands_over() {
    let mut three = Three::led(&[OWN, OTHER]);
    three.writes_and_rots();
    three.holds(Index(4));
    three.is_lost = true;
    three.run(1_000);
    assert_eq!((three.brought, three.role(), three.asked_to_stand.len()), (0, Role::Leader, 0));
}

#[test]
fn where_nobody_else_could_lead_it_leads_on() {
    let mut three = Three::led(&[OWN]);
    three.writes_and_rots();
    three.holds(Index(4));
    three.run(500);
    assert_eq!((three.brought, three.role(), three.asked_to_stand.len()), (0, Role::Leader, 0));
}

/// What lies behind the damage is read, and sent.
#[test]
fn damage_that_no_follower_needs_changes_nothing() {
    let mut three = Three::led(&[OWN, OTHER]);
    three.writes_and_rots();
    three.holds(Index(40));
    three.run(500);
    assert!(three.brought > 0);
    assert_eq!((three.role(), three.asked_to_stand.len()), (Role::Leader, 0));
}
