//! What a client knows of the copies of a command that it has sent, and which numbers of its session are free by that.
//!
//! A node refuses a copy for good: what was refused is not in the log and comes there by no other copy than one that is sent
//! again. So a number is as good as never used if each copy of its command is known to have been refused; and since a leader
//! takes a session's numbers in order, nothing behind it is in the log, either, though a copy that comes late may find itself
//! in turn. A number may go to another command if nobody can know it, nor any number behind it ([`count_free`]).

use super::Refusal;
use crate::types::Service;

/// Of one command under one number. As it begins nothing was sent.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Standing {
    /// A copy is under way: no word of it has come.
    is_sent: bool,
    /// A copy was sent of which no word will come, or none that says what became of it. Stays so.
    is_uncertain: bool,
    /// It was not run, but it may be in the log: its session was gone. Stays so.
    is_passed_over: bool,
}

impl Standing {
    /// A copy leaves; there is one at a time.
    pub fn sent(&mut self) {
        self.is_sent = true;
    }

    /// The connection is lost, or the answer is not waited for any longer.
    pub fn lost(&mut self) {
        self.is_uncertain |= std::mem::take(&mut self.is_sent);
    }

    /// A node has refused the copy that is under way.
    pub fn refused(&mut self, refusal: &Refusal, service: Service) {
        self.is_sent = false;
        match refusal {
            Refusal::OutcomeUnknown => self.is_uncertain = true,
            Refusal::SessionGone => self.is_passed_over |= service == Service::Machine,
            // Whoever adds a refusal says here whether the command may have happened all the same.
            Refusal::NotLeader { .. }
            | Refusal::Busy
            | Refusal::NoSpace
            | Refusal::TooLarge { .. }
            | Refusal::Gap { .. }
            | Refusal::Trimmed { .. }
            | Refusal::Unavailable { .. }
            | Refusal::Malformed
            | Refusal::NotAllowed
            | Refusal::LeasesOff
            | Refusal::Impossible { .. }
            | Refusal::SnapshotFailed { .. }
            | Refusal::MapAlone => {}
        }
    }

    /// Each copy that was sent is known to have been refused: it did not happen.
    pub fn is_certain(self) -> bool {
        !self.is_sent && !self.is_uncertain
    }

    /// Neither it nor anything behind it in its session is in the log.
    pub fn ends_log(self) -> bool {
        self.is_certain() && !self.is_passed_over
    }
}

/// How many of a session's last numbers are free for other commands, given what is known of each number, from the last one
/// on. Only while nothing of the session was moved to another one, but for one end of it that is closed: what is left of it
/// is sent under no higher number than before, so nothing comes in turn that waited behind what was moved.
pub fn count_free(from_last: impl Iterator<Item = Standing>) -> usize {
    from_last.take_while(|standing| standing.ends_log()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(refusal: &Refusal, service: Service) -> Standing {
        let mut standing = Standing::default();
        standing.sent();
        standing.refused(refusal, service);
        standing
    }

    #[test]
    fn a_number_is_free_if_each_copy_of_it_and_of_those_behind_it_was_refused() {
        let fresh = Standing::default();
        let busy = refused(&Refusal::Busy, Service::Append);
        let unknown = refused(&Refusal::OutcomeUnknown, Service::Append);
        let mut sent = busy;
        sent.sent();
        let mut lost = sent;
        lost.lost();
        assert_eq!(count_free([fresh, busy, busy].into_iter()), 3);
        for may_be_there in [sent, lost, unknown] {
            assert!(!may_be_there.is_certain());
            assert_eq!(count_free([busy, may_be_there, busy].into_iter()), 1);
        }
    }

    #[test]
    fn what_was_lost_or_unknown_once_stays_so() {
        for mut standing in [refused(&Refusal::OutcomeUnknown, Service::Append), {
            let mut lost = Standing::default();
            lost.sent();
            lost.lost();
            lost
        }] {
            standing.sent();
            standing.refused(&Refusal::NoSpace, Service::Append);
            assert!(!standing.is_certain());
        }
        let mut idle = refused(&Refusal::Busy, Service::Append);
        idle.lost();
        assert!(idle.is_certain(), "nothing was under way");
    }

    /// A command of the map that was passed over may be in the log, and so what stands behind it may be.
    #[test]
    fn a_command_whose_session_went_says_nothing_of_those_behind_it() {
        let machine = refused(&Refusal::SessionGone, Service::Machine);
        let append = refused(&Refusal::SessionGone, Service::Append);
        assert!(machine.is_certain() && !machine.ends_log());
        assert!(append.is_certain() && append.ends_log());
    }
}
