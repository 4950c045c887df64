//! Clients, and what they know: each keeps its own journal, outside of the system.
//!
//! A client registers a session, numbers its commands from 1, has several in flight, and sends each again, under the
//! same number, until it is told where it stands. It computes what the map must answer by itself, since nobody else
//! touches its key.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};

use super::oracles::{Broken, Oracle, Oracles, RECORD_NAME_BYTES, RecordName};
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
    /// Commands begun.
    last_number: u64,
    /// It begins no more beyond this.
    pub last_number_max: u64,
    /// Commands without an answer.
    unanswered: BTreeMap<u64, Sent>,
    /// Requests without an answer.
    open: BTreeMap<u64, Open>,
    last_request: u64,
    /// The value of the client's key after each of its map commands; the first is before them.
    values: Vec<Option<Bytes>>,
    /// Map commands that are known to be done.
    values_done: usize,
    /// A record that was acknowledged, to be read.
    last_record: Option<(Index, RecordName)>,
    pub resent: u64,
    pub reads: u64,
    pub refused_no_space: u64,
}

#[derive(Clone, Debug)]
struct Sent {
    service: Service,
    body: Bytes,
    /// What the map must answer, and how many map commands were begun then.
    expected: Option<(Bytes, usize)>,
    /// Requests that carry it.
    open: u32,
    is_sent: bool,
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
    Value { done: usize, consistency: Consistency },
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
            last_number: 0,
            last_number_max: u64::MAX,
            unanswered: BTreeMap::new(),
            open: BTreeMap::new(),
            last_request: 0,
            values: vec![None],
            values_done: 0,
            last_record: None,
            resent: 0,
            reads: 0,
            refused_no_space: 0,
        }
    }

    /// From here on only a few more commands are begun.
    pub fn wind_down(&mut self) {
        self.last_number_max = self.last_number + self.options.calm_commands;
    }

    /// Everything that it was to do is done, and known to be.
    pub fn is_done(&self) -> bool {
        self.session.is_some() && self.unanswered.is_empty() && self.last_number >= self.last_number_max
    }

    /// In words, for a run that does not end.
    pub fn state(&self) -> String {
        let numbers: Vec<_> = self.unanswered.keys().take(4).collect();
        format!("client {} of session {:?} waits for {numbers:?} at node {}", self.id, self.session, self.target + 1)
    }

    /// Looks after what it has to do; gives what it sends, and to whom.
    pub fn step(&mut self, now: u64, oracles: &mut Oracles) -> Vec<(usize, Request)> {
        self.give_up_late(now);
        let mut requests = Vec::new();
        let Some(session) = self.session else {
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
    pub fn answered(&mut self, response: Response, oracles: &mut Oracles) -> Result<(), Broken> {
        let Some(open) = self.open.remove(&response.id) else { return Ok(()) };
        match (open.what, response.body) {
            (What::Register, ResponseBody::Submitted { results }) => self.registered(&results),
            (What::Commands(numbers), ResponseBody::Submitted { results }) => {
                self.close(&numbers);
                self.submitted(&numbers, results, oracles)?;
            }
            (What::Value { done, consistency }, ResponseBody::Answer(answer)) => {
                self.check_value(done, consistency, &answer)?;
            }
            (What::Record { index }, ResponseBody::Records(records)) => {
                oracles.check_records(index, records.next, &records.records)?;
                if records.next <= index {
                    let explanation = format!("a linearizable read does not see entry {index}, which was acknowledged");
                    return Err(Broken::new(Oracle::Acknowledged, explanation));
                }
            }
            (what, ResponseBody::Refused(refusal)) => {
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

    fn begin_commands(&mut self, oracles: &mut Oracles) {
        let burst = 1 + self.random.below(self.options.window);
        for _ in 0..burst {
            if self.unanswered.len() as u64 >= self.options.window || self.last_number >= self.last_number_max {
                return;
            }
            self.last_number += 1;
            let sent = if self.random.chance(700) { self.new_record(oracles) } else { self.new_map_command() };
            self.unanswered.insert(self.last_number, sent);
        }
    }

    fn new_record(&mut self, oracles: &mut Oracles) -> Sent {
        let length = self.random.below(self.options.record_bytes_max - RECORD_NAME_BYTES as u64) as usize;
        let mut body = BytesMut::with_capacity(RECORD_NAME_BYTES + length);
        body.put_u64_le(self.id);
        body.put_u64_le(self.last_number);
        // A record of zeros must be told from a sector that was never written.
        let is_zeros = self.random.chance(100);
        body.resize(RECORD_NAME_BYTES + length, 0);
        if !is_zeros {
            self.random.fill(&mut body[RECORD_NAME_BYTES..]);
        }
        let body = body.freeze();
        oracles.issued((self.id, self.last_number), body.clone());
        Sent { service: Service::Append, body, expected: None, open: 0, is_sent: false }
    }

    fn new_map_command(&mut self) -> Sent {
        let key = self.key();
        let before = self.values.last().expect("the first is before all commands").clone();
        let new = Bytes::from(format!("{}-{}", self.id, self.last_number));
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
        self.values.push(after);
        let body = command.encode().expect("short keys and values are within the limits");
        let expected = Some((answer.encode(), self.values.len() - 1));
        Sent { service: Service::Machine, body, expected, open: 0, is_sent: false }
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
        let what = What::Value { done: self.values_done, consistency };
        Some(self.ask(now, what, RequestBody::Query { query, consistency }))
    }

    fn ask_record(&mut self, now: u64) -> Option<(usize, Request)> {
        let (index, _) = self.last_record?;
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
                    SubmitResult::Refused(refusal) => self.command_refused(number, refusal)?,
                }
            }
        }
        match left.next() {
            Some(_) => Err(Broken::new(Oracle::Whole, "fewer results than commands")),
            None => Ok(()),
        }
    }

    fn command_refused(&mut self, number: u64, refusal: &Refusal) -> Result<(), Broken> {
        if matches!(refusal, Refusal::SessionGone | Refusal::Malformed | Refusal::TooLarge { .. })
            && self.unanswered.contains_key(&number)
        {
            let explanation = format!("request {number} of session {:?} was refused: {refusal}", self.session);
            return Err(Broken::new(Oracle::Acknowledged, explanation));
        }
        self.refused(refusal);
        Ok(())
    }

    fn done(&mut self, number: u64, index: Index, answer: Option<&Bytes>, oracles: &mut Oracles) -> Result<(), Broken> {
        let Some(sent) = self.unanswered.remove(&number) else { return Ok(()) };
        let session = self.session.expect("commands are sent in a session");
        let expected = sent.expected.as_ref().map(|(answer, _)| answer);
        if answer != expected {
            let explanation = format!("the answer to request {number} of session {session} is not the machine's");
            return Err(Broken::new(Oracle::Acknowledged, explanation));
        }
        if let Some((_, values)) = sent.expected {
            self.values_done = self.values_done.max(values);
        }
        let record = (sent.service == Service::Append).then_some((self.id, number));
        self.last_record = record.map(|record| (index, record)).or(self.last_record);
        oracles.acknowledged((session, RequestNumber(number)), index, record)
    }

    /// A linearizable read shows all that was done when it was asked; any read shows only what was begun.
    fn check_value(&mut self, done: usize, consistency: Consistency, answer: &Bytes) -> Result<(), Broken> {
        self.reads += 1;
        let from = if consistency == Consistency::Stale { 0 } else { done };
        let fits = |value: &Option<Bytes>| Answer::Value(value.clone()).encode() == *answer;
        if self.values[from..].iter().any(fits) {
            return Ok(());
        }
        let explanation =
            format!("a read ({consistency:?}) of client {} shows none of the values that it can", self.id);
        Err(Broken::new(Oracle::Acknowledged, explanation))
    }
}

fn command(service: Service, session: SessionId, number: u64, lowest: u64) -> Command {
    Command { service, session, number: RequestNumber(number), lowest_unanswered: RequestNumber(lowest) }
}

fn encode(session: SessionId, number: u64, lowest: u64, sent: &Sent) -> Data {
    codec::encode_command(&command(sent.service, session, number, lowest), &sent.body)
}
