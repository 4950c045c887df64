//! Everything a client has under way, without a connection: requests out, answers and times in.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::asks::{Answered, Ask, Asks};
use super::error::Error;
use super::handle::WhenBusy;
use super::records::{Batch, Batches, Record};
use super::session::{Effect, Run, Session, Told};
use crate::codec::encode_command;
use crate::net::{Refusal, Request, RequestBody, Response, ResponseBody, SubmitResult};
use crate::random::Random;
use crate::types::{Command, Data, RequestNumber, Service, SessionId};

/// Waits after a refusal that may pass: doubled from the first to the longest, with jitter.
pub(super) const PAUSE_MIN: Duration = Duration::from_millis(5);
pub(super) const PAUSE_MAX: Duration = Duration::from_millis(320);
/// A leader whose disk is full is left so long, or a quarter of what callers wait if that is less, to say so again: nothing
/// is sent to it later. More than the two seconds for which a leader has a request wait (node/driver/room.rs).
const ANSWER_TIME: Duration = Duration::from_millis(2500);

#[derive(Debug)]
pub(super) struct Core {
    /// Records without a number, in the order in which they were given.
    fresh: VecDeque<Record>,
    session: Option<Session>,
    /// The request that registers a session.
    registering: Option<u64>,
    /// Which numbers a request carries. At most one request for each slot of the session.
    runs: BTreeMap<u64, Run>,
    asks: Asks,
    batches: Batches,
    records_max: usize,
    when_busy: WhenBusy,
    /// Records may be given to a node that does not lead, which passes them on.
    forward: bool,
    /// The number of the last request.
    last_request: u64,
    pause: Pause,
    /// What callers are told whose time ends before anything was sent.
    reason: Error,
    /// The present leader's disk was full when it was asked last. Whoever then has less than `answer_time` left is told so
    /// at once, unless a copy may be in the log: the first one that waits always is one that may be tried.
    is_full: bool,
    answer_time: Duration,
    /// Nothing is tried behind what is not in the log, or may not be.
    stops_at_failure: bool,
    /// What all who have no number are told since then.
    stopped: Option<Error>,
    /// The present node does not lead; another is to be found.
    deposed: Option<Deposed>,
}

/// What a node said when it did not lead.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Deposed {
    pub leader: Option<SocketAddr>,
}

/// When the next request may leave.
#[derive(Debug)]
pub(super) struct Pause {
    until: Option<Instant>,
    refusals: u32,
    random: Random,
}

/// A node's answer makes no sense: the connection is of no use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Nonsense;

impl Core {
    pub fn new(records_max: usize, when_busy: WhenBusy, seed: u64) -> Core {
        Core {
            fresh: VecDeque::new(),
            session: None,
            registering: None,
            runs: BTreeMap::new(),
            asks: Asks::default(),
            batches: Batches::default(),
            records_max,
            when_busy,
            forward: false,
            last_request: 0,
            pause: Pause { until: None, refusals: 0, random: Random::seeded(seed) },
            reason: no_leader(),
            is_full: false,
            answer_time: ANSWER_TIME,
            stops_at_failure: false,
            stopped: None,
            deposed: None,
        }
    }

    /// The same, for callers who wait so long.
    pub fn patient_for(self, timeout: Duration) -> Core {
        Core { answer_time: ANSWER_TIME.min(timeout / 4), ..self }
    }

    /// The same, where nothing is to be in the log behind what is not, or may not be.
    pub fn stopping_at_failure(self, stops_at_failure: bool) -> Core {
        Core { stops_at_failure, ..self }
    }

    /// The same, for a connection to whichever node.
    pub fn forwarding(self, forward: bool) -> Core {
        Core { forward, ..self }
    }

    pub fn submit(&mut self, batch: Batch) {
        self.batches.open(batch, &mut self.fresh);
        if self.session.as_ref().is_some_and(Session::is_turned_away) {
            self.fail_fresh(&Error::Busy);
        }
        self.stop_behind();
    }

    pub fn ask(&mut self, ask: Ask) {
        self.asks.push(ask);
    }

    /// The next request to send, unless there is a reason to wait.
    pub fn next_request(&mut self, now: Instant) -> Option<Request> {
        if self.deposed.is_some() || self.pause.until.is_some_and(|until| now < until) {
            return None;
        }
        let id = self.last_request + 1;
        let body = self.asks.send(id, now).or_else(|| self.next_submit(id, now))?;
        self.last_request = id;
        Some(Request { id, body })
    }

    pub fn on_response(&mut self, response: Response, now: Instant) -> Result<(), Nonsense> {
        let Response { id, body } = response;
        if self.registering == Some(id) {
            return self.on_registered(body, now);
        }
        let Some(run) = self.runs.remove(&id) else { return self.on_answer(id, body, now) };
        let told = told(body, run.count)?;
        let Some(mut session) = self.session.take() else { return Ok(()) };
        for (number, told) in (run.first..).zip(told) {
            match &told {
                Told::Refused(refusal) => self.note(refusal),
                Told::Done { .. } => self.is_full = false,
            }
            let effect = session.settle(number, id, told, &mut self.batches);
            self.follow(effect, now);
        }
        if session.is_turned_away() {
            self.fail_fresh(&Error::Busy);
        }
        self.session = Some(session);
        self.end_session();
        Ok(())
    }

    pub fn on_connected(&mut self) {
        self.deposed = None;
        self.reason = Error::Unavailable { reason: "nothing was sent in time: too much is waiting".to_owned() };
    }

    /// No answer comes any more on the present connection.
    pub fn on_lost(&mut self, reason: Option<Error>) {
        self.reason = reason.unwrap_or_else(no_leader);
        // The next one may have room.
        self.is_full = false;
        self.registering = None;
        self.runs.clear();
        self.asks.lost();
        if let Some(session) = &mut self.session {
            session.lost();
        }
        self.pause.reset();
        self.end_session();
    }

    /// While no leader is known: why.
    pub fn on_unreachable(&mut self, reason: Error) {
        if let Error::NotTrusted(_) = reason {
            self.asks.refuse_waiting(&reason);
            self.fail_fresh(&reason);
        }
        self.reason = reason;
    }

    /// Tells everyone whose time has come.
    pub fn expire(&mut self, now: Instant) {
        self.asks.expire(now, &self.reason);
        let early = self.early();
        if let Some(session) = &mut self.session {
            session.expire(now, early, &self.reason, &mut self.batches);
        }
        self.end_session();
        while self.fresh.front().is_some_and(|record| record.deadline <= now + early) {
            let record = self.fresh.pop_front().expect("found above");
            self.batches.failed(&record, self.reason.clone());
            if self.stops_at_failure {
                self.stopped.get_or_insert_with(|| self.reason.clone());
            }
        }
        self.stop_behind();
    }

    /// When [`Core::expire`] or [`Core::next_request`] has something to do, if nothing else happens.
    pub fn wake_at(&self) -> Option<Instant> {
        let early = self.early();
        let session = self.session.as_ref().and_then(|session| session.due(early));
        let fresh = self.fresh.front().map(|record| record.deadline - early);
        [session, fresh, self.asks.due(), self.pause.until].into_iter().flatten().min()
    }

    /// A pause that is over is forgotten.
    pub fn end_pause(&mut self, now: Instant) {
        self.pause.until = self.pause.until.filter(|until| now < *until);
        self.asks.end_pauses(now);
    }

    pub fn is_waiting_for_answers(&self) -> bool {
        !self.runs.is_empty() || self.registering.is_some() || self.asks.is_any_sent()
    }

    /// Nobody waits for anything.
    pub fn is_idle(&self) -> bool {
        self.batches.is_empty() && !self.asks.is_any_sent() && !self.asks.is_any_waiting()
    }

    pub fn deposed(&self) -> Option<Deposed> {
        self.deposed
    }

    /// How long before their time is over those are told of whom certainly nothing is in the log.
    fn early(&self) -> Duration {
        if self.is_full { self.answer_time } else { Duration::ZERO }
    }

    fn next_submit(&mut self, id: u64, now: Instant) -> Option<RequestBody> {
        let Some(session) = &mut self.session else { return self.register(id) };
        while session.has_room()
            && let Some(record) = self.fresh.pop_front()
        {
            session.push(record);
        }
        let (run, commands) = match self.is_full {
            true => session.next_attempt(id, now + self.answer_time)?,
            false => session.next_run(id, self.records_max)?,
        };
        self.runs.insert(id, run);
        Some(self.body(commands))
    }

    fn register(&mut self, id: u64) -> Option<RequestBody> {
        if self.fresh.is_empty() || self.registering.is_some() {
            return None;
        }
        self.registering = Some(id);
        let (session, number) = (SessionId(0), RequestNumber(0));
        let command = Command { service: Service::Register, session, number, lowest_unanswered: number };
        Some(self.body(vec![encode_command(&command, &[])]))
    }

    fn body(&self, commands: Vec<Data>) -> RequestBody {
        match self.forward {
            true => RequestBody::SubmitAnywhere { commands },
            false => RequestBody::Submit { commands },
        }
    }

    fn on_registered(&mut self, body: ResponseBody, now: Instant) -> Result<(), Nonsense> {
        self.registering = None;
        match told(body, 1)?.as_slice() {
            [Told::Done { index, .. }] => {
                self.is_full = false;
                self.session = Some(Session::new(SessionId(index.0), self.when_busy));
                self.follow(Effect::Progress, now);
            }
            [Told::Refused(Refusal::Busy)] if self.when_busy == WhenBusy::Tell => self.fail_fresh(&Error::Busy),
            [Told::Refused(refusal)] => {
                self.note(refusal);
                self.follow(Effect::Pause, now);
            }
            _ => return Err(Nonsense),
        }
        Ok(())
    }

    fn on_answer(&mut self, id: u64, body: ResponseBody, now: Instant) -> Result<(), Nonsense> {
        let random = &mut self.pause.random;
        let again_at = |refusals| now + jittered(refusals, random);
        match self.asks.answer(id, body, self.when_busy == WhenBusy::Tell, again_at) {
            Answered::Told => self.follow(Effect::Progress, now),
            Answered::Again(refusal) => {
                self.note(&refusal);
                self.follow(Effect::Pause, now);
            }
            // Its caller was told before that it came too late.
            Answered::Unknown => {}
        }
        Ok(())
    }

    /// Tells all that have no number; where order counts, it is the same with those who come later.
    fn fail_fresh(&mut self, error: &Error) {
        if self.stops_at_failure && !self.fresh.is_empty() {
            self.stopped.get_or_insert_with(|| error.clone());
        }
        self.fresh.drain(..).for_each(|record| self.batches.failed(&record, error.clone()));
    }

    /// Where order counts, nothing is tried behind what failed.
    fn stop_behind(&mut self) {
        if let Some(error) = self.stopped.clone() {
            self.fail_fresh(&error);
        }
    }

    /// Remembers why a node did not do what it was asked.
    fn note(&mut self, refusal: &Refusal) {
        match refusal {
            Refusal::NotLeader { leader } => {
                self.deposed = Some(Deposed { leader: leader.map(|(_, address)| address) });
            }
            Refusal::Busy | Refusal::NoSpace | Refusal::Unavailable { .. } => {
                self.is_full |= *refusal == Refusal::NoSpace;
                self.reason = Error::from_refusal(refusal);
            }
            _ => {}
        }
    }

    fn follow(&mut self, effect: Effect, now: Instant) {
        match effect {
            Effect::Progress => self.pause.reset(),
            Effect::Again => {}
            Effect::Pause => self.pause.refused(now),
            Effect::Doubt => self.deposed = self.deposed.or(Some(Deposed { leader: None })),
        }
    }

    /// What an ended session gives back is the first to go into the next one; where order counts, only if none has failed.
    fn end_session(&mut self) {
        if self.stops_at_failure
            && let Some(session) = &mut self.session
        {
            let given_up = session.end_behind(&mut self.batches).cloned();
            self.stopped = self.stopped.take().or(given_up);
        }
        if let Some(session) = self.session.take_if(|session| session.is_over()) {
            self.runs.clear();
            let (returned, given_up) = session.dissolve(&mut self.batches);
            returned.into_iter().rev().for_each(|record| self.fresh.push_front(record));
            if self.stops_at_failure {
                self.stopped = self.stopped.take().or(given_up);
            }
        }
        self.stop_behind();
    }
}

impl Pause {
    fn reset(&mut self) {
        self.until = None;
        self.refusals = 0;
    }

    /// Many refusals at one time are one.
    fn refused(&mut self, now: Instant) {
        if self.until.is_none() {
            self.until = Some(now + jittered(self.refusals, &mut self.random));
            self.refusals += 1;
        }
    }
}

/// The wait after a number of vain attempts.
pub(super) fn jittered(attempts: u32, random: &mut Random) -> Duration {
    let longest = PAUSE_MIN.saturating_mul(1 << attempts.min(16)).min(PAUSE_MAX);
    let micros = longest.as_micros() as u64;
    Duration::from_micros(random.between(micros / 2, micros + 1))
}

fn no_leader() -> Error {
    Error::Unavailable { reason: "no leader was found in time".to_owned() }
}

/// What a node said of each of `count` commands, runs written out.
fn told(body: ResponseBody, count: usize) -> Result<Vec<Told>, Nonsense> {
    let results = match body {
        ResponseBody::Submitted { results } => results,
        ResponseBody::Refused(refusal) => return Ok(vec![Told::Refused(refusal); count]),
        _ => return Err(Nonsense),
    };
    let mut told = Vec::with_capacity(count);
    for result in results {
        match result {
            SubmitResult::Run { first, count: run } if told.len() + run as usize <= count => {
                told.extend((0..u64::from(run)).map(|ahead| Told::Done { index: first.plus(ahead), answer: None }));
            }
            SubmitResult::Run { .. } => return Err(Nonsense),
            SubmitResult::Done { index, answer } => told.push(Told::Done { index, answer: Some(answer) }),
            SubmitResult::Refused(refusal) => told.push(Told::Refused(refusal)),
        }
    }
    if told.len() == count { Ok(told) } else { Err(Nonsense) }
}
