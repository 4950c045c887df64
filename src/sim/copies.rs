//! Which copies of a command may be in the log: all that were sent and not refused. A client that knows each copy of a
//! command to be refused says that it did not happen; then it must not be in the log, nor come there later, although its
//! number may, with another command.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::oracles::{Broken, Oracle, RecordName};
use crate::codec;
use crate::net::{Refusal, Request, RequestBody, Response, ResponseBody, SubmitResult};
use crate::types::{Data, Index, RequestNumber, Service, SessionId};

pub(super) type Name = (SessionId, RequestNumber);

/// What clients sent, and what nodes said of it, whether that arrives or not.
#[derive(Debug, Default)]
pub(super) struct Copies {
    /// The commands that had a number of a session, one after the other: the last one has it. One that is certainly in no
    /// log has another number later, and its number may be another command's.
    holders: BTreeMap<Name, Vec<Holder>>,
    /// What a client's request carries.
    carried: BTreeMap<(u64, u64), Vec<Carried>>,
    /// How often a number that was sent with one command was given to another.
    pub given_again: u64,
}

/// A command that has, or had, a number.
#[derive(Debug)]
struct Holder {
    command: RecordName,
    service: Service,
    body: Bytes,
    is_sent: bool,
    /// Copies that were sent under this number, and not refused.
    standing: u64,
    /// A node said that its session is gone: a command of the map may be in the log then, and was not run.
    is_passed_over: bool,
}

/// A command that a request carries, by its place among those that had its number.
#[derive(Clone, Copy, Debug)]
struct Carried {
    name: Name,
    place: usize,
}

impl Copies {
    /// From here on this number is this command's.
    pub fn numbered(&mut self, name: Name, command: RecordName, service: Service, body: Bytes) {
        let holders = self.holders.entry(name).or_default();
        self.given_again += u64::from(holders.last().is_some_and(|last| last.is_sent && last.command != command));
        holders.push(Holder { command, service, body, is_sent: false, standing: 0, is_passed_over: false });
    }

    /// A client's request is on its way, so many times.
    pub fn sent(&mut self, client: u64, request: &Request, copies: u64) {
        let (RequestBody::Submit { commands } | RequestBody::SubmitAnywhere { commands }) = &request.body else {
            return;
        };
        let names: Vec<Name> = commands.iter().filter_map(name).collect();
        let mut carried = Vec::with_capacity(names.len());
        for name in names {
            let holders = self.holders.get_mut(&name).expect("what is sent has a number");
            let place = holders.len() - 1;
            holders[place].is_sent = true;
            holders[place].standing += copies;
            carried.push(Carried { name, place });
        }
        self.carried.insert((client, request.id), carried);
    }

    /// A node answers one copy of a request. Gives the commands that it refuses.
    pub fn answered(&mut self, client: u64, response: &Response) -> Result<Vec<(Name, RecordName)>, Broken> {
        let Some(carried) = self.carried.get(&(client, response.id)) else { return Ok(Vec::new()) };
        let refused = match &response.body {
            ResponseBody::Refused(refusal) if is_certain(refusal) => carried.clone(),
            ResponseBody::Submitted { results } => {
                for Carried { name, place } in refused(carried, results, |refusal| *refusal == Refusal::SessionGone) {
                    self.holders.get_mut(&name).expect("what is carried has a number")[place].is_passed_over = true;
                }
                refused(carried, results, is_certain)
            }
            _ => return Ok(Vec::new()),
        };
        let mut commands = Vec::with_capacity(refused.len());
        for Carried { name, place } in refused {
            let holder = &mut self.holders.get_mut(&name).expect("what is carried has a number")[place];
            if holder.standing == 0 {
                let explanation = format!("request {} of session {} was answered more often than sent", name.1, name.0);
                return Err(Broken::new(Oracle::Acknowledged, explanation));
            }
            holder.standing -= 1;
            commands.push((name, holder.command));
        }
        Ok(commands)
    }

    /// No copy of what has this number can come into effect any more.
    pub fn is_refused(&self, name: Name) -> bool {
        self.last(name).is_none_or(|holder| holder.standing == 0)
    }

    /// Whether a node passed over it because its session was gone: of a command of the map that may mean that it is in the
    /// log, and so those behind it may be, too.
    pub fn is_passed_over(&self, name: Name) -> bool {
        self.last(name).is_some_and(|holder| holder.is_passed_over)
    }

    /// Which of the commands that were sent under this number these bytes are, by what is said in them: of those that say
    /// the same, the first of which not every copy was refused, or else the last.
    pub fn command(&self, name: Name, service: Service, body: &Bytes) -> Option<RecordName> {
        let is_this = |holder: &&Holder| holder.is_sent && holder.service == service && holder.body == *body;
        let mut sent = self.holders.get(&name)?.iter().filter(is_this);
        let may_be_there = sent.clone().find(|holder| holder.standing > 0);
        may_be_there.or_else(|| sent.next_back()).map(|holder| holder.command)
    }

    /// A command that is committed must have a copy that was not refused.
    pub fn check(&self, name: Name, command: RecordName, index: Index) -> Result<(), Broken> {
        let holders = self.holders.get(&name).into_iter().flatten();
        let sent = holders.filter(|holder| holder.command == command && holder.is_sent);
        if sent.map(|holder| holder.standing).max() != Some(0) {
            return Ok(());
        }
        let explanation = format!("request {} of session {} was refused, and is committed at {index}", name.1, name.0);
        Err(Broken::new(Oracle::Acknowledged, explanation))
    }

    fn last(&self, name: Name) -> Option<&Holder> {
        self.holders.get(&name).and_then(|holders| holders.last())
    }
}

fn name(data: &Data) -> Option<Name> {
    let (command, _) = codec::decode_command(&data.bytes).ok()?;
    (command.service != Service::Register).then_some((command.session, command.number))
}

/// Those of a request's commands that were refused so.
fn refused(carried: &[Carried], results: &[SubmitResult], so: impl Fn(&Refusal) -> bool) -> Vec<Carried> {
    let mut refused = Vec::new();
    let mut at = 0;
    for result in results {
        match result {
            SubmitResult::Refused(refusal) if so(refusal) => refused.extend(carried.get(at)),
            _ => {}
        }
        at += if let SubmitResult::Run { count, .. } = result { *count as usize } else { 1 };
    }
    refused
}

fn is_certain(refusal: &Refusal) -> bool {
    *refusal != Refusal::OutcomeUnknown
}
