//! Clients, and what they know: each keeps its own journal, outside of the system.
//!
//! A client registers a session, numbers its commands from 1, has several in flight, and sends each again, under the
//! same number, until it is told where it stands. It computes what the map must answer by itself, since nobody else
//! touches its key.
//!
//! When its session went it registers anew, as [`crate::client`] does: what is certainly not in the log it sends in the
//! next one, of the rest it does not know what became. From then on only the oracles know what the map must answer.
//!
//! An impatient one gives up a command after a while, if it knows by [`count_free`], as [`crate::client`] does, that neither
//! it nor anything behind it is in the log: those behind it, and new ones, take the numbers from there on. Its requests come
//! once at most, as over a link: of a double it would not know.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};

use bytes::{BufMut, Bytes, BytesMut};

use super::oracles::{Broken, Oracle, Oracles, RECORD_NAME_BYTES};
use super::scenario::{ClientOptions, REQUEST_COMMANDS_MAX};
use crate::codec;
use crate::machine::command::{Answer, Command as MapCommand, Query};
use crate::mutant::{self, Mutant};
use crate::net::{
    Consistency, Refusal, Request, RequestBody, Response, ResponseBody, Standing, SubmitResult, count_free,
};
use crate::random::Random;
use crate::types::{Command, Data, Index, RequestNumber, Service, SessionId};

#[derive(Debug)]
pub(super) struct Client {
    id: u64,
    random: Random,
    /// For which requests may be passed on.
    forwarding: Random,
    /// For how long it waits.
    impatience: Random,
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
    /// Whether that is so: no command was given up, or failed.
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
    pub refused_busy: u64,
    /// Commands that were given up because they are certainly not in the log.
    pub failed: u64,
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
    /// What the client knows of its copies.
    standing: Standing,
    is_sent: bool,
    begun: u64,
    /// When it is given up if it is certainly not in the log.
    deadline: u64,
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
            // As if forked: what is passed on draws what it always did.
            impatience: forwarding.clone().fork(),
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
            refused_busy: 0,
            failed: 0,
        }
    }

    /// From here on only a few more commands are begun, and none fails: each is asked for until it is answered, in requests
    /// so large that one which goes to a node that is down for good, and is waited for, holds up few others.
    pub fn wind_down(&mut self) {
        self.begun_max = self.begun + self.options.calm_commands;
        (self.options.patience, self.options.request_commands_max) = (0, REQUEST_COMMANDS_MAX);
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
    pub fn step(&mut self, now: u64, oracles: &mut Oracles) -> Result<Vec<(usize, Request)>, Broken> {
        self.now = now;
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
            return Ok(requests);
        };
        if self.options.patience > 0 {
            self.fail_free(session, oracles)?;
        }
        self.begin_commands(session, oracles);
        while let Some(request) = self.send_commands(now, session) {
            requests.push(request);
        }
        if self.random.chance(200) {
            requests.extend(self.ask_value(now));
            requests.extend(self.ask_record(now));
        }
        Ok(requests)
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
                    self.note(&numbers, |standing, service| standing.refused(&refusal, service));
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
                self.note(&numbers, |standing, service| match mutant::is_on(Mutant::NumberFreeWhenLost) {
                    true => standing.refused(&Refusal::Busy, service),
                    false => standing.lost(),
                });
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

    /// Notes what happened to the copies of these.
    fn note(&mut self, numbers: &[u64], happened: impl Fn(&mut Standing, Service)) {
        for number in numbers {
            if let Some(sent) = self.unanswered.get_mut(number) {
                happened(&mut sent.standing, sent.service);
            }
        }
    }

    /// Of the numbers that are free, the commands that are too late fail; those behind them take their numbers.
    fn fail_free(&mut self, session: SessionId, oracles: &mut Oracles) -> Result<(), Broken> {
        let mut free = self.unanswered.iter().skip(self.unanswered.len() - self.count_free());
        let late = free.find(|(_, sent)| sent.deadline <= self.now);
        let Some(first) = late.map(|(number, _)| *number) else { return Ok(()) };
        self.last_number = first - 1;
        for sent in self.unanswered.split_off(&first).into_values() {
            if self.now < sent.deadline {
                self.number(session, Sent { open: 0, standing: Standing::default(), ..sent }, oracles);
                continue;
            }
            self.failed += 1;
            self.is_value_sure &= sent.service != Service::Machine;
            oracles.failed((self.id, sent.ordinal))?;
        }
        if !self.is_value_sure {
            self.unanswered.values_mut().for_each(|sent| sent.expected = None);
        }
        Ok(())
    }

    fn count_free(&self) -> usize {
        match mutant::is_on(Mutant::NumberFreeBesideUncertain) {
            // Behind one that is certain everything counts as certain.
            true => self.unanswered.values().skip_while(|sent| !sent.standing.ends_log()).count(),
            false => {
                // Where a number is missing, it is done: what it has in the log ends what is free.
                let from_last = self.unanswered.iter().rev().zip((0..=self.last_number).rev());
                let unbroken = from_last.take_while(|((number, _), expected)| *number == expected);
                count_free(unbroken.map(|((_, sent), _)| sent.standing))
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
                true => {
                    let standing = Standing::default();
                    self.returned.push_back(Sent { open: 0, is_sent: false, standing, ..sent });
                }
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

    fn begin_commands(&mut self, session: SessionId, oracles: &mut Oracles) {
        let burst = 1 + self.random.below(self.options.window);
        for _ in 0..burst {
            if self.unanswered.len() as u64 >= self.options.window {
                return;
            }
            let mut sent = match self.returned.pop_front() {
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
            let patience = self.options.patience;
            sent.deadline = if patience == 0 { u64::MAX } else { self.now + self.impatience.below(2 * patience) };
            self.number(session, sent, oracles);
        }
    }

    /// Gives a command the next number.
    fn number(&mut self, session: SessionId, sent: Sent, oracles: &mut Oracles) {
        self.last_number += 1;
        let name = (session, RequestNumber(self.last_number));
        oracles.copies.numbered(name, (self.id, sent.ordinal), sent.service, sent.body.clone());
        self.unanswered.insert(self.last_number, sent);
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
        Sent::new(self.begun, Service::Append, body, None)
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
        Sent::new(self.begun, Service::Machine, body, expected)
    }

    fn key(&self) -> Bytes {
        Bytes::from(format!("client-{}", self.id))
    }

    /// The commands that no open request carries, as many as go into one.
    fn send_commands(&mut self, now: u64, session: SessionId) -> Option<(usize, Request)> {
        let lowest = *self.unanswered.keys().next()?;
        let mut numbers = Vec::new();
        let mut commands = Vec::new();
        let waiting = self.unanswered.iter_mut().filter(|(_, sent)| sent.open == 0);
        for (number, sent) in waiting.take(self.options.request_commands_max) {
            numbers.push(*number);
            commands.push(encode(session, *number, lowest, sent));
            self.resent += u64::from(sent.is_sent);
            sent.begun = if sent.is_sent { sent.begun } else { now };
            (sent.is_sent, sent.open) = (true, sent.open + 1);
            sent.standing.sent();
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
        self.refused_busy += u64::from(*refusal == Refusal::Busy);
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
        self.note(&[number], |standing, service| standing.refused(refusal, service));
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
        oracles.acknowledged(((session, RequestNumber(number)), (self.id, sent.ordinal)), index, answer)
    }
}

impl Sent {
    fn new(ordinal: u64, service: Service, body: Bytes, expected: Option<Bytes>) -> Sent {
        let standing = Standing::default();
        Sent { ordinal, service, body, expected, open: 0, standing, is_sent: false, begun: 0, deadline: u64::MAX }
    }
}

fn command(service: Service, session: SessionId, number: u64, lowest: u64) -> Command {
    Command { service, session, number: RequestNumber(number), lowest_unanswered: RequestNumber(lowest) }
}

fn encode(session: SessionId, number: u64, lowest: u64, sent: &Sent) -> Data {
    codec::encode_command(&command(sent.service, session, number, lowest), &sent.body)
}
