//! Why a node stops.

use super::{Driver, Effect};
use crate::disk;
use crate::machine::{self, StateMachine};
use crate::net::CloseReason;
use crate::raft;
use crate::types::NodeId;
use crate::wal;

/// Why a node stops. Nothing that waited is answered.
#[derive(Debug, thiserror::Error)]
pub enum Stopped {
    #[error("the disk failed, and nothing more can be promised: {0}")]
    Disk(disk::Error),
    #[error("the log does not take what the protocol gave it: {0}")]
    Log(wal::Refused),
    #[error("an entry that was committed cannot be read: {0}")]
    Read(wal::Error),
    #[error(transparent)]
    Machine(machine::Error),
    /// Neither can be believed before somebody has looked.
    #[error(transparent)]
    Contradicted(raft::Contradiction),
    /// It must not speak any more in this life of it.
    #[error("node {by} does not hear this node any more: {reason}")]
    VoiceTaken { by: NodeId, reason: CloseReason },
}

impl Stopped {
    /// Whether this node was found to have lost what it had promised, so that it must not be started again in this life.
    pub fn takes_voice(&self) -> bool {
        match self {
            Stopped::VoiceTaken { .. } => true,
            Stopped::Contradicted(contradiction) => contradiction.takes_voice(),
            Stopped::Disk(_) | Stopped::Log(_) | Stopped::Read(_) | Stopped::Machine(_) => false,
        }
    }
}

impl<M: StateMachine> Driver<M> {
    /// Of what was to be done nothing is done any more.
    pub(super) fn end_if_stopped(&mut self, effects: &mut Vec<Effect>) -> Result<(), Stopped> {
        match self.stopped.take() {
            Some(stopped) => {
                effects.clear();
                Err(stopped)
            }
            None => Ok(()),
        }
    }

    pub(super) fn stop_on(&mut self, result: Result<(), Stopped>) {
        if let Err(stopped) = result
            && self.stopped.is_none()
        {
            self.stopped = Some(stopped);
        }
    }
}
