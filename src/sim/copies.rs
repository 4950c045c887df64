//! Which copies of a command may be in the log: all that were sent and not refused. A client that knows each copy of a
//! command to be refused says that it did not happen; then it must not be in the log, nor come there later.

use std::collections::{BTreeMap, BTreeSet};

use super::oracles::{Broken, Oracle};
use crate::codec;
use crate::net::{Refusal, Request, RequestBody, Response, ResponseBody, SubmitResult};
use crate::types::{Data, Index, RequestNumber, Service, SessionId};

pub(super) type Name = (SessionId, RequestNumber);

/// What clients sent, and what nodes said of it, whether that arrives or not.
#[derive(Debug, Default)]
pub(super) struct Copies {
    /// Copies that were sent and not refused.
    standing: BTreeMap<Name, u64>,
    /// Commands of the map of which a node said that their session is gone: they may be in the log, and were not run.
    passed_over: BTreeSet<Name>,
    /// What a client's request carries.
    carried: BTreeMap<(u64, u64), Vec<Name>>,
}

impl Copies {
    /// A client's request is on its way, so many times.
    pub fn sent(&mut self, client: u64, request: &Request, copies: u64) {
        let (RequestBody::Submit { commands } | RequestBody::SubmitAnywhere { commands }) = &request.body else {
            return;
        };
        let names: Vec<Name> = commands.iter().filter_map(name).collect();
        for name in &names {
            *self.standing.entry(*name).or_default() += copies;
        }
        self.carried.insert((client, request.id), names);
    }

    /// A node answers one copy of a request. Gives the commands that it refuses.
    pub fn answered(&mut self, client: u64, response: &Response) -> Result<Vec<Name>, Broken> {
        let Some(names) = self.carried.get(&(client, response.id)) else { return Ok(Vec::new()) };
        let refused = match &response.body {
            ResponseBody::Refused(refusal) if is_certain(refusal) => names.clone(),
            ResponseBody::Submitted { results } => {
                self.passed_over.extend(refused(names, results, |refusal| *refusal == Refusal::SessionGone));
                refused(names, results, is_certain)
            }
            _ => return Ok(Vec::new()),
        };
        for &name in &refused {
            let standing = self.standing.get_mut(&name).expect("what is carried was sent");
            if *standing == 0 {
                let explanation = format!("request {} of session {} was answered more often than sent", name.1, name.0);
                return Err(Broken::new(Oracle::Acknowledged, explanation));
            }
            *standing -= 1;
        }
        Ok(refused)
    }

    /// No copy of it can come into effect any more.
    pub fn is_refused(&self, name: Name) -> bool {
        self.standing.get(&name).is_none_or(|standing| *standing == 0)
    }

    /// Whether a node passed over it because its session was gone: of a command of the map that may mean that it is in the
    /// log, and so those behind it may be, too.
    pub fn is_passed_over(&self, name: Name) -> bool {
        self.passed_over.contains(&name)
    }

    /// A command that is committed must have a copy that was not refused.
    pub fn check(&self, name: Name, index: Index) -> Result<(), Broken> {
        if self.standing.get(&name) != Some(&0) {
            return Ok(());
        }
        let explanation = format!("request {} of session {} was refused, and is committed at {index}", name.1, name.0);
        Err(Broken::new(Oracle::Acknowledged, explanation))
    }
}

fn name(data: &Data) -> Option<Name> {
    let (command, _) = codec::decode_command(&data.bytes).ok()?;
    (command.service != Service::Register).then_some((command.session, command.number))
}

/// Those of a request's commands that were refused so.
fn refused(names: &[Name], results: &[SubmitResult], so: impl Fn(&Refusal) -> bool) -> Vec<Name> {
    let mut refused = Vec::new();
    let mut at = 0;
    for result in results {
        match result {
            SubmitResult::Refused(refusal) if so(refusal) => refused.extend(names.get(at)),
            _ => {}
        }
        at += if let SubmitResult::Run { count, .. } = result { *count as usize } else { 1 };
    }
    refused
}

fn is_certain(refusal: &Refusal) -> bool {
    *refusal != Refusal::OutcomeUnknown
}
