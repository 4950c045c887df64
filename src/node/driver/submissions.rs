//! Clients' commands between their arrival and their answer.

use std::collections::{BTreeMap, VecDeque};

use super::{Driver, Effect};
use crate::codec::{self, COMMAND_HEAD_BYTES};
use crate::limits::{REQUEST_BYTES_MAX, SESSION_ANSWER_BYTES_MAX, WIRE_FRAME_BYTES_MAX};
use crate::machine::StateMachine;
use crate::mutant::{self, Mutant};
use crate::net::{ClientKey, ForwardId, Forwarded, Refusal, Response, ResponseBody, SubmitResult};
use crate::node::sessions::{Admit, Lane};
use crate::raft::{Refused, Role};
use crate::types::{Command, Data, Index, NodeId, Payload, RequestNumber, Service, SessionId};
use crate::wal;

use super::apply::answered_before;
use super::room::cost_bytes;

/// A state machine's answers to one request, with room in the frame for what stands beside each.
const ANSWERS_BYTES_MAX: usize = WIRE_FRAME_BYTES_MAX / 2;

/// Requests that may wait for entries that were in the log before them.
const ATTACHED_MAX: usize = 65_536;

/// Commands of all requests that wait, those among them that are answered already.
const OPEN_RESULTS_MAX: usize = 1 << 20;

/// Requests that wait for their entries. Bounded by what the replica lets wait uncommitted, by [`ATTACHED_MAX`] and by
/// [`OPEN_RESULTS_MAX`].
#[derive(Debug, Default)]
pub(super) struct Submissions {
    open: BTreeMap<u64, Open>,
    open_results: usize,
    last_key: u64,
    /// Runs of entries whose results go to one request, by rising index.
    waits: VecDeque<Wait>,
    /// Commands that were in the log already when they were sent again.
    attached: BTreeMap<Index, Vec<(u64, usize)>>,
    /// How many commands those are.
    attached_count: usize,
}

/// Who waits for the answer to a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Asker {
    Client {
        client: ClientKey,
        id: u64,
    },
    /// A node that passed on what a client asked of it.
    Node {
        node: NodeId,
        id: ForwardId,
    },
}

/// A request, and what is known of its commands.
#[derive(Debug)]
struct Open {
    asker: Asker,
    /// `None` while it is not known.
    results: Vec<Option<SubmitResult>>,
    missing: usize,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    first: Index,
    count: u64,
    request: u64,
    /// Where in the request the run begins.
    ordinal: usize,
}

impl Asker {
    pub fn told(self, outcome: Result<Vec<SubmitResult>, Refusal>) -> Effect {
        match self {
            Asker::Client { client, id } => {
                let submitted = |results| ResponseBody::Submitted { results };
                let body = outcome.map_or_else(ResponseBody::Refused, submitted);
                Effect::Reply { client, response: Response { id, body } }
            }
            Asker::Node { node, id } => Effect::Forwarded { to: node, forwarded: Forwarded { id, outcome } },
        }
    }
}

impl Submissions {
    /// The entry at `index` is applied, with this result.
    pub fn applied(&mut self, index: Index, result: SubmitResult, effects: &mut Vec<Effect>) {
        if let Some(waiting) = self.attached.remove(&index) {
            self.attached_count -= waiting.len();
            for (request, ordinal) in waiting {
                self.settle(request, ordinal, result.clone(), effects);
            }
        }
        let Some(wait) = self.waits.front().copied().filter(|wait| wait.first <= index) else { return };
        let ahead = index.0 - wait.first.0;
        assert!(ahead < wait.count, "runs that wait are passed in order");
        if ahead + 1 == wait.count {
            self.waits.pop_front();
        }
        self.settle(wait.request, wait.ordinal + ahead as usize, result, effects);
    }

    /// This node leads no more: whether what waits will be committed is not known here.
    pub fn abandon(&mut self, effects: &mut Vec<Effect>) {
        self.waits.clear();
        self.attached.clear();
        (self.attached_count, self.open_results) = (0, 0);
        for (_, open) in std::mem::take(&mut self.open) {
            let unknown = |known: Option<SubmitResult>| known.unwrap_or(SubmitResult::Refused(Refusal::OutcomeUnknown));
            let results = open.results.into_iter().map(unknown).collect();
            effects.push(answer(open.asker, results));
        }
    }

    fn settle(&mut self, request: u64, ordinal: usize, result: SubmitResult, effects: &mut Vec<Effect>) {
        let open = self.open.get_mut(&request).expect("a request waits until all its results are known");
        assert!(open.results[ordinal].is_none(), "a result comes once");
        open.results[ordinal] = Some(result);
        open.missing -= 1;
        if open.missing == 0 {
            let open = self.open.remove(&request).expect("found above");
            self.open_results -= open.results.len();
            effects.push(answer(open.asker, open.results.into_iter().flatten().collect()));
        }
    }

    /// Takes a request of so many commands, of which nothing is known yet; gives its key.
    pub fn begin(&mut self, asker: Asker, count: usize) -> u64 {
        assert!(count > 0, "a request without commands is refused");
        self.last_key += 1;
        self.open_results += count;
        self.open.insert(self.last_key, Open { asker, results: vec![None; count], missing: count });
        self.last_key
    }

    /// So much is known of a request's commands from this one on. If that is all of it, it is answered.
    pub fn know(&mut self, request: u64, first: usize, verdicts: Vec<CommandVerdict>, effects: &mut Vec<Effect>) {
        for (ordinal, verdict) in (first..).zip(verdicts) {
            match verdict {
                CommandVerdict::Known(result) => self.settle(request, ordinal, result, effects),
                CommandVerdict::Proposed(index) => self.wait(index, request, ordinal),
                CommandVerdict::Attached(index) => {
                    self.attached_count += 1;
                    self.attached.entry(index).or_default().push((request, ordinal));
                }
            }
        }
    }

    fn wait(&mut self, index: Index, request: u64, ordinal: usize) {
        let joins = |wait: &&mut Wait| {
            let ordinal_next = wait.ordinal as u64 + wait.count;
            wait.request == request && wait.first.plus(wait.count) == index && ordinal_next == ordinal as u64
        };
        match self.waits.back_mut().filter(joins) {
            Some(wait) => wait.count += 1,
            None => self.waits.push_back(Wait { first: index, count: 1, request, ordinal }),
        }
    }
}

/// What is known of one command when it arrives.
pub(super) enum CommandVerdict {
    Known(SubmitResult),
    Proposed(Index),
    Attached(Index),
}

impl<M: StateMachine> Driver<M> {
    pub(super) fn on_submit(&mut self, asker: Asker, commands: Vec<Data>) {
        if let Some(refusal) = self.refusal(&commands) {
            self.effects.push(asker.told(Err(refusal)));
            return;
        }
        self.waiting.join(asker, commands);
        self.take_waiting();
    }

    /// Proposes what is new of these commands; tells of each what is known by now.
    pub(super) fn admit(&mut self, commands: Vec<Data>) -> Vec<CommandVerdict> {
        let mut verdicts = Vec::with_capacity(commands.len());
        let mut rest = commands.into_iter().peekable();
        while let Some(data) = rest.next() {
            match codec::decode_command(&data.bytes) {
                Ok((command, _)) if command.service == Service::Register => verdicts.push(self.register(data)),
                Ok((command, _)) => {
                    let mut run = vec![(command, data)];
                    while let Some((command, data)) = next_of_session(&mut rest, command.session) {
                        run.push((command, data));
                    }
                    self.admit_run(command.session, run, &mut verdicts);
                }
                Err(_) => verdicts.push(refused(Refusal::Malformed)),
            }
        }
        verdicts
    }

    /// Why a request is refused whole, before any of its commands is looked at. Also where only a part of it would find
    /// room among what may be uncommitted: the answer for the rest would have to wait for the commit of that part. (Room on
    /// the disk is waited for.)
    fn refusal(&self, commands: &[Data]) -> Option<Refusal> {
        if commands.is_empty() {
            return Some(Refusal::Malformed);
        }
        if let Some(refusal) = self.refusal_while_born() {
            return Some(refusal);
        }
        let status = self.replica.status();
        if status.role != Role::Leader {
            return Some(Refusal::NotLeader { leader: self.leader_address() });
        }
        if self.admission.is_none() {
            return Some(Refusal::Unavailable { reason: "the leader is taking over".to_owned() });
        }
        let commands_open = self.submissions.open_results + self.waiting.commands() + commands.len();
        let is_full = commands_open > OPEN_RESULTS_MAX
            || !self.replica.has_room(cost_bytes(commands))
            || !self.waiting.may_join(commands, self.options.limits.uncommitted_bytes_max);
        is_full.then_some(Refusal::Busy)
    }

    /// Only where its session's first request will find room: who is to come later is told so at once, and does not
    /// wait for a session first.
    fn register(&mut self, data: Data) -> CommandVerdict {
        if !self.replica.has_room(REQUEST_BYTES_MAX) {
            return refused(Refusal::Busy);
        }
        self.waiting.proposed_bytes += wal::record_bytes(data.bytes.len());
        match self.replica.propose(vec![Payload::Data(data)]) {
            Ok(range) => CommandVerdict::Proposed(range.start),
            Err(error) => refused(self.refusal_of(error)),
        }
    }

    /// Admits a run of one session's commands. After the first that is refused, the later ones come out of turn and
    /// are refused, too.
    fn admit_run(&mut self, session: SessionId, run: Vec<(Command, Data)>, verdicts: &mut Vec<CommandVerdict>) {
        let mut busy = None;
        let admission = self.admission.as_mut().expect("a leader without one refuses the whole request");
        let Some(mut lane) = admission.lane(&self.sessions, session) else {
            if mutant::is_on(Mutant::SessionReopened) {
                return verdicts.extend(run.into_iter().map(|(_, data)| self.register(data)));
            }
            // A session is named after its first entry: one that lies ahead was opened at another leader since.
            let refusal = match session.0 > self.applied.index.0 {
                true => Refusal::NotLeader { leader: None },
                false => Refusal::SessionGone,
            };
            verdicts.extend(run.iter().map(|_| refused(refusal.clone())));
            return;
        };
        for (command, data) in run {
            if data.bytes.len() > self.record_bytes_max + COMMAND_HEAD_BYTES {
                // Those behind it in its session come out of turn.
                verdicts.push(refused(Refusal::TooLarge { max: self.record_bytes_max as u64 }));
                continue;
            }
            let record_bytes = wal::record_bytes(data.bytes.len());
            verdicts.push(match lane.admit(&command) {
                Admit::Append if command.service == Service::Append && self.options.retention.is_for_map_alone => {
                    refused(Refusal::MapAlone)
                }
                Admit::Append if busy.is_some() => refused(Refusal::Busy),
                Admit::Append => match self.replica.propose(vec![Payload::Data(data)]) {
                    Ok(range) => {
                        self.waiting.proposed_bytes += record_bytes;
                        let verdict = appended(&mut lane, command.number, range.start);
                        if mutant::is_on(Mutant::RefusedThoughProposed) { refused(Refusal::Busy) } else { verdict }
                    }
                    Err(error) => {
                        busy = Some(error);
                        refused(Refusal::Busy)
                    }
                },
                Admit::Answered(answered) => CommandVerdict::Known(answered_before(answered, command.service)),
                Admit::Pending { .. } if self.submissions.attached_count >= ATTACHED_MAX => refused(Refusal::Busy),
                Admit::Pending { index } => CommandVerdict::Attached(index),
                Admit::Gap { expected } => refused(Refusal::Gap { expected: expected.0 }),
                Admit::TooManyUnanswered => refused(Refusal::Busy),
                Admit::Stale => refused(Refusal::OutcomeUnknown),
                Admit::Invalid => refused(Refusal::Malformed),
                Admit::Behind => refused(Refusal::NotLeader { leader: None }),
            });
        }
    }

    pub(super) fn refusal_of(&self, error: Refused) -> Refusal {
        match error {
            Refused::NotLeader { .. } => Refusal::NotLeader { leader: self.leader_address() },
            Refused::Busy => Refusal::Busy,
            Refused::LeasesOff => Refusal::LeasesOff,
            Refused::TransferPending => Refusal::Unavailable { reason: error.to_string() },
            Refused::NotAnotherVoter => Refusal::Impossible { reason: error.to_string() },
        }
    }
}

fn appended(lane: &mut Lane<'_>, number: RequestNumber, index: Index) -> CommandVerdict {
    lane.appended(number, index);
    CommandVerdict::Proposed(index)
}

pub(super) fn refused(refusal: Refusal) -> CommandVerdict {
    CommandVerdict::Known(SubmitResult::Refused(refusal))
}

/// The next command, if it is of this session.
fn next_of_session(
    rest: &mut std::iter::Peekable<std::vec::IntoIter<Data>>,
    session: SessionId,
) -> Option<(Command, Data)> {
    let (command, _) = codec::decode_command(&rest.peek()?.bytes).ok()?;
    let is_same = command.session == session && command.service != Service::Register;
    if is_same { rest.next().map(|data| (command, data)) } else { None }
}

/// The answer to a request; runs of plain indexes are told as one. Of what a state machine answers so much is told as
/// fits a frame: of the rest it is not known what became of it.
fn answer(asker: Asker, results: Vec<SubmitResult>) -> Effect {
    let mut told: Vec<SubmitResult> = Vec::new();
    let mut room = ANSWERS_BYTES_MAX;
    for mut result in results {
        if let SubmitResult::Done { answer, .. } = &result {
            let fits = answer.len() <= SESSION_ANSWER_BYTES_MAX.min(room);
            if fits {
                room -= answer.len();
            } else {
                result = SubmitResult::Refused(Refusal::OutcomeUnknown);
            }
        }
        if let (Some(SubmitResult::Run { first, count }), SubmitResult::Run { first: next, count: 1 }) =
            (told.last_mut(), &result)
            && first.plus(u64::from(*count)) == *next
        {
            *count += 1;
            continue;
        }
        told.push(result);
    }
    asker.told(Ok(told))
}
