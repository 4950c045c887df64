//! Leadership transfer (dissertation §3.10): the leader stops taking proposals, brings the other up to its own end, and
//! asks it to stand for election at once.

use crate::mutant::{self, Mutant};
use crate::types::NodeId;

use super::replica::{Replica, State};
use super::{Body, Refused};

/// Leadership is being handed over.
#[derive(Clone, Copy, Hash, Debug)]
pub(super) struct Transfer {
    to: NodeId,
    /// When they are over, this node leads on.
    remaining_ticks: u32,
    /// Until the other is asked to stand again, since that may have been lost; 0 before it was asked. Counted apart from
    /// the heartbeats, whose interval begins anew with each round that reads want.
    ask_again_ticks: u32,
    /// Because the disk here stalls: if nobody takes over, this node does not lead on.
    pub(super) from_disk: bool,
}

impl Replica {
    pub(super) fn begin_transfer(&mut self, to: NodeId) -> Result<(), Refused> {
        self.begin_transfer_for(to, false)
    }

    pub(super) fn begin_transfer_from_disk(&mut self, to: NodeId) -> Result<(), Refused> {
        self.begin_transfer_for(to, true)
    }

    fn begin_transfer_for(&mut self, to: NodeId, from_disk: bool) -> Result<(), Refused> {
        let remaining_ticks = self.config.election_ticks.end;
        let State::Leader(leading) = &mut self.state else { return Err(Refused::NotLeader { leader: self.leader }) };
        if leading.transfer.is_some() {
            return Err(Refused::TransferPending);
        }
        if to == self.config.id || !self.memberships.current().voters.contains(&to) {
            return Err(Refused::NotAnotherVoter);
        }
        if !mutant::is_on(Mutant::LeaseOutlivesTransfer) {
            leading.lease.end();
        }
        leading.transfer = Some(Transfer { from_disk, ..Transfer::new(to, remaining_ticks) });
        self.continue_transfer();
        Ok(())
    }

    /// Ask the other to stand, once it has everything, and again after each heartbeat interval.
    pub(super) fn continue_transfer(&mut self) {
        let (last, interval_ticks) = (self.log.last().index, self.config.heartbeat_ticks);
        let State::Leader(leading) = &mut self.state else { return };
        let Some(transfer) = leading.transfer.filter(|transfer| transfer.ask_again_ticks == 0) else { return };
        if leading.matched(transfer.to) == last {
            leading.transfer = Some(Transfer { ask_again_ticks: interval_ticks, ..transfer });
            self.send(transfer.to, Body::StandNow);
            if self.is_out() {
                self.step_down();
            }
        }
    }
}

impl Transfer {
    pub(super) fn new(to: NodeId, remaining_ticks: u32) -> Transfer {
        Transfer { to, remaining_ticks, ask_again_ticks: 0, from_disk: false }
    }

    pub(super) fn to(self) -> NodeId {
        self.to
    }

    pub(super) fn ticked(self) -> Option<Transfer> {
        let remaining_ticks = self.remaining_ticks.checked_sub(1)?;
        Some(Transfer { remaining_ticks, ask_again_ticks: self.ask_again_ticks.saturating_sub(1), ..self })
    }
}
