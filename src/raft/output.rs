//! What a replica wants done, collected when it is asked for.
//!
//! It is asked for after every input, and many ask for nothing: most ticks of a follower, what was applied. After those the
//! way through all that could be sent is spared. Where assertions are on it is taken all the same, and finds nothing.

use super::replica::{Replica, State};
use super::{Output, Persist};

impl Replica {
    /// Everything that must be done since the last call.
    pub fn take_output(&mut self) -> Output {
        let mut output = Output::default();
        self.fill_output(&mut output);
        output
    }

    /// The same in place of what `output` holds, whose memory is used again: for callers who take many. False if there
    /// is nothing to be done.
    pub fn fill_output(&mut self, output: &mut Output) -> bool {
        if !output.is_empty() {
            output.clear();
        }
        let is_touched = std::mem::take(&mut self.is_touched);
        if !is_touched && !cfg!(debug_assertions) {
            return false;
        }
        let is_filled = self.collect_output(output);
        assert!(is_touched || !is_filled, "an output that nobody would have asked for: {output:?}");
        is_filled
    }

    #[inline(never)]
    fn collect_output(&mut self, output: &mut Output) -> bool {
        if self.contradiction.is_some() {
            self.fill_last_words(output);
            return !output.is_empty();
        }
        match self.state {
            State::Leader(_) => self.send_as_leader(),
            State::Follower(_) => self.send_as_follower(),
            State::PreCandidate(_) | State::Candidate(_) => {}
        }
        if let Some(persist) = self.take_persist() {
            self.output.persist = Some(persist);
        }
        if self.commit > self.commit_told {
            self.commit_told = self.commit;
            self.output.commit = Some(self.commit);
        }
        let is_empty = self.output.is_empty();
        if !is_empty {
            std::mem::swap(&mut self.output, output);
        }
        !is_empty
    }

    /// Nothing is done any more; whoever waits for a read is told.
    fn fill_last_words(&mut self, output: &mut Output) {
        let Output { reads_ready, mut reads_refused, events, .. } = std::mem::take(&mut self.output);
        reads_refused.extend(reads_ready.into_iter().map(|ready| ready.token));
        *output = Output { reads_refused, events, ..Output::default() };
    }

    fn has_unpersisted(&self) -> bool {
        self.persists.hard_state_waits || self.log.has_unpersisted() || self.base_waits.is_some()
    }

    fn take_persist(&mut self) -> Option<Persist> {
        if !self.has_unpersisted() {
            return None;
        }
        let base = self.base_waits.take();
        let hard_state = self.persists.hard_state_waits.then_some(self.hard_state);
        let number = self.persists.hand_out();
        self.own_disk.on_handed_out(number, self.log.last().index);
        Some(Persist { number, hard_state, base, entries: self.log.persist(number) })
    }
}
