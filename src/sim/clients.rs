//! Clients, and what they know: each keeps its own journal, outside of the system.
//!
//! A client registers a session, numbers its commands from 1, has several in flight, and sends each again, under the
//! same number, until it is told where it stands. It computes what the map must answer by itself, since nobody else
//! touches its key.
//!
//! When its session went it registers anew, as [`crate::client`] does: what is certainly not in the log it sends in the
//! next one, of the rest it does not know what became. From then on only the oracles know what the map must answer.

use std::collections::{BTreeMap, VecDeque};

use bytes::{BufMut, Bytes, BytesMut};

use super::oracles::{Broken, Oracle, Oracles, RECORD_NAME_BYTES};
use super::scenario::ClientOptions;
use crate::codec;
use crate::machine::command::{Answer, Command as MapCommand, Query};
use crate::net::{Consistency, Refusal, Request, RequestBody, Response, ResponseBody, SubmitResult};
use crate::random::Random;
use crate::types::{Command, Data, Index, RequestNumber, Service, SessionId};

/// Commands in one request.
const REQUEST_COMMANDS_MAX: usize = 16;

#[derive(Debug)]
pub(super) struct Client {
    id: u64,
    random: Random,
    /// For which requests may be passed on.
    forwarding: Random,
    options: ClientOptions,
    nodes: usize,
    /// Whom it asks.
    target: usize,
    session: Option<SessionId>,
    /// A node said that the session is gone: nothing more is sent in it.
    is_gone: bool,
    /// The last number given in this session.
    last_number: u64,
    /// Commands begun.
    begun: u64,
    /// It begins no more beyond this.
    begun_max: u64,
    /// Of an earlier session, and certainly not in the log: to be sent in the next one, in order.
    returned: VecDeque<Sent>,
    /// Commands without an answer.
    unanswered: BTreeMap<u64, Sent>,
    /// Requests without an answer.
    open: BTreeMap<u64, Open>,
    last_request: u64,
    /// What the client's key holds if all was run that was begun.
    value: Option<Bytes>,
    /// Whether that is so: no command was given up.
    is_value_sure: bool,
    /// The last of its commands that it knows to be done.
    last_done: Index,
    /// A record that was acknowledged, to be read.
    last_record: Option<Index>,
    pub resent: u64,
    /// Commands that were sent in another session.
    pub renumbered: u64,
    /// Commands whose answer had to make room, or whose session went before the answer came.
    pub given_up: u64,
    pub reads: u64,
    /// How long each command took from its first copy to its answer.
    pub times: Vec<u64>,
    /// What the clock showed at the last look.
    now: u64,
    pub refused_no_space: u64,
}

#[derive(Clone, Debug)]
struct Sent {
    /// The how manieth of the client's commands.
    ordinal: u64,
    service: Service,
    body: Bytes,
    /// What the map must answer, where the client can know it.
    expected: Option<Bytes>,
    /// Requests that carry it.
    open: u32,
    is_sent: bool,
    begun: u64,
}

#[derive(Clone, Debug)]
struct Open {
    deadline: u64,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Register,
    Commands(Vec<u64>),
    Value { since: Index },
    Record { index: Index },
}

impl Client {
    pub fn new(id: u64, nodes: usize, options: ClientOptions, (random, forwarding): (Random, Random)) -> Client {
        Client {
            id,
            random,
            forwarding,
            options,
            nodes,
            target: 0,
            session: None,
            is_gone: false,
            last_number: 0,
            begun: 0,
            begun_max: u64::MAX,
            returned: VecDeque::new(),
            unanswered: BTreeMap::new(),
            open: BTreeMap::new(),
            last_request: 0,
            value: None,
            is_value_sure: true,
            last_done: Index::ZERO,
            last_record: None,
            resent: 0,
            renumbered: 0,
            given_up: 0,
            reads: 0,
            times: Vec::new(),
            now: 0,
            refused_no_space: 0,
        }
    }

    /// From here on only a few more commands are begun.
    pub fn wind_down(&mut self) {
        self.begun_max = self.begun + self.options.calm_commands;
    }

    /// Everything that it was to do is done, and known to be.
    pub fn is_done(&self) -> bool {
        let has_nothing_left = self.unanswered.is_empty() && self.returned.is_empty();
        self.session.is_some() && has_nothing_left && self.begun >= self.begun_max
    }

    /// In words, for a run that does not end.
    pub fn state(&self) -> String {
        let numbers: Vec<_> = self.unanswered.keys().take(4).collect();
        format!("client {} of session {:?} waits for {numbers:?} at node {}", self.id, self.session, self.target + 1)
    }

    /// Looks after what it has to do; gives what it sends, and to whom.
    pub fn step(&mut self, now: u64, oracles: &mut Oracles) -> Vec<(usize, Request)> {
        self.give_up_late(now);
        if self.is_gone && self.open.is_empty() {
            self.leave_session(oracles);
        }
        let mut requests = Vec::new();
        let Some(session) = self.session.filter(|_| !self.is_gone) else {
            if self.open.is_empty() {
                let command = command(Service::Register, SessionId(0), 0, 0);
                let data = codec::encode_command(&command, &[]);
                let body = self.submission(vec![data]);
                requests.push(self.ask(now, What::Register, body));
            }
            return requests;
        };
        self.begin_commands(oracles);
        while let Some(request) = self.send_commands(now, session) {
            requests.push(request);
        }
        if self.random.chance(200) {
            requests.extend(self.ask_value(now));
            requests.extend(self.ask_record(now));
        }
        requests
    }

    /// An answer has arrived.
    pub fn answered(&mut self, now: u64, response: Response, oracles: &mut Oracles) -> Result<(), Broken> {
        self.now = now;
        let Some(open) = self.open.remove(&response.id) else { return Ok(()) };
        match (open.what, response.body) {
            (What::Register, ResponseBody::Submitted { results }) => self.registered(&results),
            (What::Commands(numbers), ResponseBody::Submitted { results }) => {
                self.close(&numbers);
                self.submitted(&numbers, results, oracles)?;
            }
            // A linearizable read shows all that was done when it was asked; any read shows only what was run.
            (What::Value { since }, ResponseBody::Answer(answer)) => {
                self.reads += 1;
                oracles.check_value(&self.key(), since, &answer)?;
            }
            (What::Record { index }, ResponseBody::Records(records)) => {
                oracles.check_records(index, records.next, &records.records)?;
                if records.next <= index {
                    let explanation = format!("a linearizable read does not see entry {index}, which was acknowledged");
                    return Err(Broken::new(Oracle::Acknowledged, explanation));
                }
            }
            (what, ResponseBody::Refused(refusal)) => {
                if let What::Record { index } = what {
                    oracles.trims.check_refusal(index, &refusal)?;
                }
                if let What::Commands(numbers) = what {
                    self.close(&numbers);
                }
                self.refused(&refusal);
            }
            (what, body) => {
                return Err(Broken::new(Oracle::Whole, format!("{body:?} is no answer to {what:?}")));
            }
        }
        Ok(())
    }

    fn give_up_late(&mut self, now: u64) {
        let late: Vec<u64> = self.open.iter().filter(|(_, open)| open.deadline <= now).map(|(id, _)| *id).collect();
        for id in &late {
            if let Some(Open { what: What::Commands(numbers), .. }) = self.open.remove(id) {
                self.close(&numbers);
            }
        }
        if !late.is_empty() {
            self.target = self.random.below(self.nodes as u64) as usize;
        }
    }

    fn close(&mut self, numbers: &[u64]) {
        for number in numbers {
            if let Some(sent) = self.unanswered.get_mut(number) {
                sent.open = sent.open.saturating_sub(1);
            }
        }
    }

    /// The session is gone, and no answer is waited for. A command is certainly not in the log if each copy of it was
    /// refused; then those behind it are not, either, unless it is in the log and was passed over there.
    fn leave_session(&mut self, oracles: &Oracles) {
        let session = self.session.take().expect("it went");
        (self.is_gone, self.last_number) = (false, 0);
        let mut is_certain = false;
        for (number, sent) in std::mem::take(&mut self.unanswered) {
            let name = (session, RequestNumber(number));
            let is_refused = oracles.copies.is_refused(name);
            let may_be_there = sent.service == Service::Machine && oracles.copies.is_passed_over(name);
            is_certain |= is_refused && !may_be_there;
            match is_certain || is_refused {
                true => self.returned.push_back(Sent { open: 0, is_sent: false, ..sent }),
                false => self.give_up(),
            }
        }
        // They will be run behind what was begun since, if anything was.
        self.returned.iter_mut().for_each(|sent| sent.expected = None);
        self.is_value_sure &= self.returned.iter().all(|sent| sent.service != Service::Machine);
    }

    /// What became of a command is not known, and will not be.
    fn give_up(&mut self) {
        self.given_up += 1;
        self.is_value_sure = false;
        self.unanswered.values_mut().for_each(|sent| sent.expected = None);
    }

    fn begin_commands(&mut self, oracles: &mut Oracles) {
        let session = self.session.expect("commands are sent in a session");
        let burst = 1 + self.random.below(self.options.window);
        for _ in 0..burst {
            if self.unanswered.len() as u64 >= self.options.window {
                return;
            }
            let sent = match self.returned.pop_front() {
                Some(sent) => {
                    self.renumbered += 1;
                    sent
                }
                None if self.begun >= self.begun_max => return,
                None => {
                    self.begun += 1;
                    if self.random.chance(700) { self.new_record(oracles) } else { self.new_map_command() }
                }
            };
            self.last_number += 1;
            oracles.numbered((session, RequestNumber(self.last_number)), (self.id, sent.ordinal));
            self.unanswered.insert(self.last_number, sent);
        }
    }

    fn new_record(&mut self, oracles: &mut Oracles) -> Sent {
        let length = self.random.below(self.options.record_bytes_max - RECORD_NAME_BYTES as u64) as usize;
        let mut body = BytesMut::with_capacity(RECORD_NAME_BYTES + length);
        body.put_u64_le(self.id);
        body.put_u64_le(self.begun);
        // A record of zeros must be told from a sector that was never written.
        let is_zeros = self.random.chance(100);
        body.resize(RECORD_NAME_BYTES + length, 0);
        if !is_zeros {
            self.random.fill(&mut body[RECORD_NAME_BYTES..]);
        }
        let body = body.freeze();
        oracles.issued((self.id, self.begun), body.clone());
        Sent { ordinal: self.begun, service: Service::Append, body, expected: None, open: 0, is_sent: false, begun: 0 }
    }

    fn new_map_command(&mut self) -> Sent {
        let key = self.key();
        let before = self.value.clone();
        let padding = (self.begun * 997 % (self.options.value_bytes_max + 1)) as usize;
        let new = Bytes::from(format!("{}-{}{:.>padding$}", self.id, self.begun, ""));
        let (command, after, answer) = match self.random.below(4) {
            0 => (MapCommand::Delete { key }, None, Answer::Deleted { existed: before.is_some() }),
            1 => {
                let wrong = Some(Bytes::from_static(b"never"));
                let command = MapCommand::CompareAndSet { key, expected: wrong, new: Some(new) };
                (command, before, Answer::Compared { equal: false })
            }
            2 => {
                let command = MapCommand::CompareAndSet { key, expected: before, new: Some(new.clone()) };
                (command, Some(new), Answer::Compared { equal: true })
            }
            _ => (MapCommand::Put { key, value: new.clone() }, Some(new), Answer::Done),
        };
        self.value = after;
        let body = command.encode().expect("short keys and values are within the limits");
        let expected = self.is_value_sure.then(|| answer.encode());
        Sent { ordinal: self.begun, service: Service::Machine, body, expected, open: 0, is_sent: false, begun: 0 }
    }

    fn key(&self) -> Bytes {
        Bytes::from(format!("client-{}", self.id))
    }

    /// The commands that no open request carries, as many as go into one.
    fn send_commands(&mut self, now: u64, session: SessionId) -> Option<(usize, Request)> {
        let lowest = *self.unanswered.keys().next()?;
        let mut numbers = Vec::new();
        let mut commands = Vec::new();
        for (number, sent) in self.unanswered.iter_mut().filter(|(_, sent)| sent.open == 0).take(REQUEST_COMMANDS_MAX) {
            numbers.push(*number);
            commands.push(encode(session, *number, lowest, sent));
            self.resent += u64::from(sent.is_sent);
            sent.begun = if sent.is_sent { sent.begun } else { now };
            (sent.is_sent, sent.open) = (true, sent.open + 1);
        }
        if numbers.is_empty() {
            return None;
        }
        let body = self.submission(commands);
        Some(self.ask(now, What::Commands(numbers), body))
    }

    fn submission(&mut self, commands: Vec<Data>) -> RequestBody {
        let forward_per_mille = self.options.forward_per_mille;
        match forward_per_mille > 0 && self.forwarding.chance(forward_per_mille) {
            true => RequestBody::SubmitAnywhere { commands },
            false => RequestBody::Submit { commands },
        }
    }

    fn ask_value(&mut self, now: u64) -> Option<(usize, Request)> {
        let consistency = if self.random.chance(500) { self.options.newest } else { Consistency::Stale };
        let query = Query::Get { key: self.key() }.encode().expect("short keys are within the limits");
        let what = What::Value { since: if consistency == Consistency::Stale { Index::ZERO } else { self.last_done } };
        Some(self.ask(now, what, RequestBody::Query { query, consistency }))
    }

    fn ask_record(&mut self, now: u64) -> Option<(usize, Request)> {
        let index = self.last_record?;
        let (to, bytes_max) = (Some(index.plus(3)), 10_000);
        let body = RequestBody::Read { from: index, to, bytes_max, consistency: self.options.newest };
        Some(self.ask(now, What::Record { index }, body))
    }

    fn ask(&mut self, now: u64, what: What, body: RequestBody) -> (usize, Request) {
        self.last_request += 1;
        self.open.insert(self.last_request, Open { deadline: now + self.options.timeout, what });
        // Whoever passes it on will do.
        let is_any = matches!(body, RequestBody::SubmitAnywhere { .. }) && self.forwarding.chance(700);
        let target = if is_any { self.forwarding.below(self.nodes as u64) as usize } else { self.target };
        (target, Request { id: self.last_request, body })
    }

    fn registered(&mut self, results: &[SubmitResult]) {
        match results {
            [SubmitResult::Run { first, count: 1 }] => self.session = Some(SessionId(first.0)),
            [SubmitResult::Refused(refusal)] => self.refused(refusal),
            _ => {}
        }
    }

    fn refused(&mut self, refusal: &Refusal) {
        self.refused_no_space += u64::from(*refusal == Refusal::NoSpace);
        self.target = match refusal {
            Refusal::NotLeader { leader: Some((leader, _)) } => super::node::node_at(*leader),
            Refusal::NotLeader { leader: None } | Refusal::Unavailable { .. } => {
                self.random.below(self.nodes as u64) as usize
            }
            _ => self.target,
        };
    }

    fn submitted(&mut self, numbers: &[u64], results: Vec<SubmitResult>, oracles: &mut Oracles) -> Result<(), Broken> {
        let mut left = numbers.iter().copied();
        for result in results {
            let count = if let SubmitResult::Run { count, .. } = result { u64::from(count) } else { 1 };
            for ordinal in 0..count {
                let Some(number) = left.next() else {
                    return Err(Broken::new(Oracle::Whole, "more results than commands"));
                };
                match &result {
                    SubmitResult::Run { first, .. } => self.done(number, first.plus(ordinal), None, oracles)?,
                    SubmitResult::Done { index, answer } => self.done(number, *index, Some(answer), oracles)?,
                    SubmitResult::Refused(refusal) => self.command_refused(number, refusal, oracles)?,
                }
            }
        }
        match left.next() {
            Some(_) => Err(Broken::new(Oracle::Whole, "fewer results than commands")),
            None => Ok(()),
        }
    }

    fn command_refused(&mut self, number: u64, refusal: &Refusal, oracles: &Oracles) -> Result<(), Broken> {
        if !self.unanswered.contains_key(&number) {
            self.refused(refusal);
            return Ok(());
        }
        let session = self.session.expect("commands are sent in a session");
        match refusal {
            Refusal::SessionGone => {
                oracles.session_gone(session)?;
                self.is_gone = true;
            }
            Refusal::Malformed | Refusal::TooLarge { .. } => {
                let explanation = format!("request {number} of session {session} was refused: {refusal}");
                return Err(Broken::new(Oracle::Acknowledged, explanation));
            }
            // Else it is asked for until an answer comes: that it has one is seen when all has come to rest.
            Refusal::OutcomeUnknown if oracles.is_answer_gone((session, RequestNumber(number))) => {
                self.unanswered.remove(&number);
                self.give_up();
            }
            _ => {}
        }
        self.refused(refusal);
        Ok(())
    }

    fn done(&mut self, number: u64, index: Index, answer: Option<&Bytes>, oracles: &mut Oracles) -> Result<(), Broken> {
        let Some(sent) = self.unanswered.remove(&number) else { return Ok(()) };
        let session = self.session.expect("commands are sent in a session");
        if sent.expected.is_some() && answer != sent.expected.as_ref() {
            let explanation = format!("the answer to request {number} of session {session} is not the machine's");
            return Err(Broken::new(Oracle::Acknowledged, explanation));
        }
        self.times.push(self.now - sent.begun);
        self.last_done = self.last_done.max(index);
        if sent.service == Service::Append {
            self.last_record = Some(index);
        }
        oracles.acknowledged((session, RequestNumber(number)), index, answer)
    }
}

fn command(service: Service, session: SessionId, number: u64, lowest: u64) -> Command {
    Command { service, session, number: RequestNumber(number), lowest_unanswered: RequestNumber(lowest) }
}

fn encode(session: SessionId, number: u64, lowest: u64, sent: &Sent) -> Data {
    codec::encode_command(&command(sent.service, session, number, lowest), &sent.body)
}
