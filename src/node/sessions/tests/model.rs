//! Random histories: the table against a model without any economy, and clients against leaders that come and go.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::random::Random;

/// The rules of design.md §6, with everything remembered.
#[derive(Default)]
struct Model {
    sessions: BTreeMap<SessionId, ModelSession>,
}

#[derive(Default)]
struct ModelSession {
    last_use: u64,
    /// The client has the answers to all below; at least 1.
    lowest: u64,
    /// All that was ever done, from number 1 on.
    done: Vec<(u64, Option<Bytes>)>,
}

impl Model {
    fn begin(&mut self, index: u64, command: &Command) -> Decision {
        if command.service == Service::Register {
            let gone = match self.sessions.len() == SMALL.sessions_max {
                true => self.sessions.iter().min_by_key(|(_, session)| session.last_use).map(|(id, _)| *id),
                false => None,
            };
            gone.map(|gone| self.sessions.remove(&gone));
            let session = ModelSession { last_use: index, lowest: 1, ..ModelSession::default() };
            self.sessions.insert(SessionId(index), session);
            return Decision::Registered { session: SessionId(index), gone };
        }
        let Some(session) = self.sessions.get_mut(&command.session) else { return Decision::SessionGone };
        session.last_use = index;
        let next = session.done.len() as u64 + 1;
        session.lowest = session.lowest.max(command.lowest_unanswered.0.min(next));
        if command.number.0 > next {
            return Decision::Gap { expected: RequestNumber(next) };
        }
        if command.number.0 == next {
            session.done.push((index, None));
            session.lowest = session.lowest.max((next + 1).saturating_sub(SMALL.answers_max as u64));
            return Decision::Run;
        }
        if command.number.0 < session.lowest {
            return Decision::Stale;
        }
        let at = command.number.0 as usize - 1;
        let (index, answer) = &session.done[at];
        // The newest answers are kept, as many as fit.
        let behind: usize = session.done[at..].iter().flat_map(|(_, answer)| answer).map(Bytes::len).sum();
        let answer = answer.clone().filter(|_| behind <= SMALL.answer_bytes_max);
        Decision::Duplicate(Answered { index: Index(*index), answer })
    }

    fn keep(&mut self, session: SessionId, number: RequestNumber, answer: Bytes) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.done[number.0 as usize - 1].1 = Some(answer);
        }
    }
}

/// One committed entry. Session and number are chosen near those that mean something.
#[derive(Clone, Debug)]
enum Step {
    Register,
    /// Of the session that registered `session`-th last: a number so far from the next one.
    Request {
        session: usize,
        number: i64,
        lowest: i64,
        machine: bool,
    },
    /// The machine, which may lag, gives its oldest answer.
    Answer {
        bytes: usize,
    },
}

fn any_step() -> impl Strategy<Value = Step> {
    let request = (0..4usize, -6..3i64, -6..4i64, any::<bool>());
    prop_oneof![
        1 => Just(Step::Register),
        12 => request.prop_map(|(session, number, lowest, machine)| Step::Request { session, number, lowest, machine }),
        8 => (0..12usize).prop_map(|bytes| Step::Answer { bytes }),
    ]
}

proptest! {
    #[test]
    fn the_table_does_as_a_model_does(steps in prop::collection::vec(any_step(), 0..200), restart in 0..200usize) {
        let (mut table, mut model) = (Sessions::with_limits(SMALL), Model::default());
        let (mut ids, mut unanswered) = (Vec::new(), VecDeque::new());
        let mut index = 0;
        for (at, step) in steps.iter().enumerate() {
            if at == restart {
                let encoded: Vec<Bytes> = table.encoded().collect();
                let restored = Sessions::restore(SMALL, encoded.iter().map(|bytes| &bytes[..])).unwrap();
                prop_assert_eq!((&restored, restored.digest()), (&table, table.digest()));
                table = restored;
            }
            index += 1;
            let command = match *step {
                Step::Register => {
                    ids.push(index);
                    register()
                }
                Step::Request { session, number, lowest, machine } => {
                    let Some(id) = ids.iter().rev().nth(session) else { continue };
                    let done = model.sessions.get(&SessionId(*id)).map_or(0, |session| session.done.len());
                    let near = |offset: i64| (done as i64 + 1 + offset).max(0) as u64;
                    let service = if machine { Service::Machine } else { Service::Append };
                    command(service, *id, near(number), near(lowest))
                }
                Step::Answer { bytes } => {
                    let answer = Bytes::from(vec![index as u8; bytes]);
                    if let Some((session, number)) = unanswered.pop_front() {
                        table.keep(session, number, answer.clone());
                        model.keep(session, number, answer);
                    }
                    continue;
                }
            };
            let decision = table.begin(Index(index), &command);
            prop_assert_eq!(&decision, &model.begin(index, &command), "{:?}", command);
            if decision == Decision::Run && command.service == Service::Machine {
                unanswered.push_back((command.session, command.number));
            }
            prop_assert_eq!(table.len(), model.sessions.len());
        }
    }

    /// A machine that lags gives its answers late: the table ends up the same.
    #[test]
    fn when_the_answers_come_makes_no_difference(
        requests in prop::collection::vec((0..6u64, 0..12usize, 0..4usize), 0..60),
    ) {
        let (mut prompt, mut late) = (table(0), table(0));
        let mut waiting = VecDeque::new();
        for (at, (behind, bytes, answers)) in requests.into_iter().enumerate() {
            let number = at as u64 + 1;
            let command = run(5, number, number.saturating_sub(behind).max(1));
            prop_assert_eq!(prompt.begin(Index(5 + number), &command), Decision::Run);
            prop_assert_eq!(late.begin(Index(5 + number), &command), Decision::Run);
            let answer = Bytes::from(vec![at as u8; bytes]);
            prompt.keep(SessionId(5), RequestNumber(number), answer.clone());
            waiting.push_back((number, answer));
            for (number, answer) in waiting.drain(..answers.min(waiting.len())) {
                late.keep(SessionId(5), RequestNumber(number), answer);
            }
        }
        for (number, answer) in waiting {
            late.keep(SessionId(5), RequestNumber(number), answer);
        }
        prop_assert_eq!(&prompt, &late);
        prop_assert_eq!(prompt.digest(), late.digest());
    }
}

/// A client that sends its numbers in any order and as often as it likes.
struct Client {
    id: u64,
    lowest: u64,
    /// The answers it got: the index of each number.
    answers: BTreeMap<u64, Index>,
}

/// A log whose uncommitted end is lost at some changes of leader. `None` is a no-op.
struct Cluster {
    random: Random,
    log: Vec<Option<Command>>,
    committed: usize,
    table: Sessions,
    admission: Admission,
    clients: Vec<Client>,
}

impl Cluster {
    fn new(seed: u64) -> Cluster {
        let mut cluster = Cluster {
            random: Random::seeded(seed),
            log: Vec::new(),
            committed: 0,
            table: Sessions::with_limits(SMALL),
            admission: Admission::new(),
            clients: Vec::new(),
        };
        for id in 1..=SMALL.sessions_max as u64 {
            cluster.log.push(Some(register()));
            cluster.clients.push(Client { id, lowest: 1, answers: BTreeMap::new() });
        }
        cluster.change_leader();
        cluster
    }

    fn step(&mut self) {
        match self.random.below(20) {
            0 => self.change_leader(),
            1..6 => {
                let more = self.random.below((self.log.len() - self.committed) as u64 + 1) as usize;
                self.commit(self.committed + more);
            }
            _ => self.request(),
        }
    }

    /// The new leader has everything that is committed, and a part of the rest.
    fn change_leader(&mut self) {
        let kept = self.random.between(self.committed as u64, self.log.len() as u64 + 1) as usize;
        let kept = if self.committed == 0 { self.log.len() } else { kept };
        self.log.truncate(kept);
        self.log.push(None);
        self.commit(self.log.len());
        self.admission = Admission::new();
    }

    fn commit(&mut self, end: usize) {
        for at in self.committed..end {
            let Some(command) = self.log[at] else { continue };
            let index = Index(at as u64 + 1);
            let decision = self.table.begin(index, &command);
            if command.service == Service::Register {
                assert!(matches!(decision, Decision::Registered { gone: None, .. }));
                continue;
            }
            assert_eq!(decision, Decision::Run, "a record is in the log once, and behind all before it");
            // The answer may be lost on its way.
            if self.random.chance(500) {
                self.answer(command.session, command.number.0, index);
            }
        }
        self.committed = end;
    }

    fn request(&mut self) {
        let at = self.random.below(self.clients.len() as u64) as usize;
        let client = &self.clients[at];
        let number = self.random.between(client.lowest, client.lowest + SMALL.answers_max as u64 + 2);
        let command = append(client.id, number, client.lowest);
        let index = Index(self.log.len() as u64 + 1);
        let mut lane = self.admission.lane(&self.table, command.session).expect("no session goes here");
        match lane.admit(&command) {
            Admit::Append if self.random.chance(100) => {}
            Admit::Append => {
                lane.appended(command.number, index);
                self.log.push(Some(command));
            }
            Admit::Answered(answered) => self.answer(command.session, number, answered.index),
            Admit::Pending { index } => assert_eq!(self.log[index.0 as usize - 1].unwrap().number.0, number),
            Admit::Gap { expected } => assert!(expected.0 < number),
            Admit::TooManyUnanswered => {}
            Admit::Stale | Admit::Invalid | Admit::Behind => panic!("an honest client is never told so: {command:?}"),
        }
    }

    fn answer(&mut self, session: SessionId, number: u64, index: Index) {
        let client = self.clients.iter_mut().find(|client| client.id == session.0).unwrap();
        let first = *client.answers.entry(number).or_insert(index);
        assert_eq!(first, index, "request {number} of {session} has one answer");
        while client.answers.contains_key(&client.lowest) {
            client.lowest += 1;
        }
    }

    fn check(&self) {
        let mut seen = BTreeSet::new();
        for (at, command) in self.log.iter().enumerate() {
            let Some(command) = command.filter(|command| command.service == Service::Append) else { continue };
            assert!(seen.insert((command.session, command.number)), "{command:?} is in the log twice");
            let client = &self.clients[command.session.0 as usize - 1];
            if let Some(index) = client.answers.get(&command.number.0) {
                assert_eq!(*index, Index(at as u64 + 1));
            }
        }
    }
}

#[test]
fn a_record_is_in_the_log_once_whatever_clients_and_leaders_do() {
    let mut answers = 0;
    for seed in 0..200 {
        let mut cluster = Cluster::new(seed);
        for _ in 0..500 {
            cluster.step();
        }
        cluster.check();
        answers += cluster.clients.iter().map(|client| client.answers.len()).sum::<usize>();
    }
    assert!(answers > 5_000, "the histories get somewhere: {answers} answers");
}
