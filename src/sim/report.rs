//! What a run was.

/// Counts over one run, and its hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Report {
    pub seed: u64,
    pub nodes: u64,
    /// Happenings of the simulated world.
    pub steps: u64,
    /// What went into the trace: inputs, outputs, messages, disk operations, faults.
    pub events: u64,
    /// Equal for equal seeds and options, whatever the machine and the build.
    pub trace_hash: u64,
    pub simulated_milliseconds: u64,
    pub starts: u64,
    pub elections: u64,
    /// Cuts of power.
    pub crashes: u64,
    pub kills: u64,
    pub write_errors: u64,
    /// Nodes whose log was damaged on purpose.
    pub rotten: u64,
    pub acknowledged_records: u64,
    pub committed_entries: u64,
    /// Commands that clients sent again.
    pub resent: u64,
    /// Sessions that had to make room for others.
    pub sessions_gone: u64,
    /// Commands that clients sent again in another session.
    pub renumbered: u64,
    /// Commands of which clients do not know what became.
    pub given_up: u64,
    /// Commands that clients gave up since they are certainly not in the log.
    pub failed: u64,
    /// Numbers of a session that were given to another command after they were sent with one.
    pub numbers_given_again: u64,
    pub reads_checked: u64,
    /// Writes that completed; each is one flush.
    pub writes: u64,
    /// In microseconds, half of the commands and 99 of a hundred were answered within these after they were first sent. Not
    /// among the counts.
    pub answer_times: (u64, u64),
    /// Reads of the log that memory could not serve.
    pub log_reads: u64,
    pub messages: u64,
    /// Requests of clients that nodes passed on.
    pub forwarded: u64,
    pub messages_lost: u64,
    pub messages_duplicated: u64,
    /// Starts whose recovery was also done twice, and interrupted.
    pub recoveries_repeated: u64,
    /// Disks that had no room for a while.
    pub full_disks: u64,
    /// Preparations of a segment that found no room.
    pub preparations_refused: u64,
    /// Starts that found no room.
    pub starts_refused: u64,
    /// Commands, and whole requests, that were refused for want of room on the disk.
    pub refused_no_space: u64,
    /// And because too much waited.
    pub refused_busy: u64,
    /// Transfers of leadership that a leader began because it was asked to.
    pub transfers: u64,
    /// Tails that were opened.
    pub tails: u64,
    /// Records that came over them.
    pub records_tailed: u64,
    /// Orders to change the members, repeated ones too.
    pub changes_asked: u64,
    /// Those that were answered as done.
    pub changes_answered: u64,
    pub members_added: u64,
    pub learners_promoted: u64,
    pub members_removed: u64,
    /// Of them, those that led when it was ordered.
    pub leaders_removed: u64,
    /// Directories that were made for nodes that join.
    pub lives_begun: u64,
    /// Disks of voters that were lost, to be replaced.
    pub disks_lost: u64,
    /// Nodes that ended because they knew that they were removed.
    pub removed_ended: u64,
    /// Snapshots that became durable, and such as the disk refused.
    pub snapshots_made: u64,
    pub snapshots_failed: u64,
    /// Starts from a snapshot.
    pub snapshots_loaded: u64,
    /// Snapshots that were damaged on purpose.
    pub snapshots_rotten: u64,
    /// Processes that were away for seconds.
    pub absences: u64,
    /// Orders to fetch a snapshot, those that brought nothing, and those that found a part of it.
    pub fetches: u64,
    pub fetches_failed: u64,
    pub fetches_resumed: u64,
    /// Snapshots that came whole and durable from other nodes, whose state was read, and that took the place of a state.
    pub snapshots_received: u64,
    pub snapshots_fetched: u64,
    pub snapshots_installed: u64,
    /// Trims that were answered as done, and tails that ended because what they had not read was trimmed.
    pub trims: u64,
    pub tails_trimmed: u64,
    /// Logs that began later than before.
    pub purges: u64,
    /// Segments that were given up and whose room went back to the disk.
    pub segments_removed: u64,
    /// Chunks that left a node, arrived as they should be or not, were there from an earlier order, were damaged where they
    /// were asked for, and were put back.
    pub chunks_sent: u64,
    pub chunks_received: u64,
    pub chunks_bad: u64,
    pub chunks_resumed: u64,
    pub chunks_refused: u64,
    pub chunks_mended: u64,
}

impl Report {
    /// The counts by name, in a fixed order.
    pub fn counts(&self) -> [(&'static str, u64); 65] {
        [
            ("nodes", self.nodes),
            ("steps", self.steps),
            ("events", self.events),
            ("simulated_milliseconds", self.simulated_milliseconds),
            ("starts", self.starts),
            ("elections", self.elections),
            ("crashes", self.crashes),
            ("kills", self.kills),
            ("write_errors", self.write_errors),
            ("rotten", self.rotten),
            ("acknowledged_records", self.acknowledged_records),
            ("committed_entries", self.committed_entries),
            ("resent", self.resent),
            ("sessions_gone", self.sessions_gone),
            ("renumbered", self.renumbered),
            ("given_up", self.given_up),
            ("failed", self.failed),
            ("numbers_given_again", self.numbers_given_again),
            ("reads_checked", self.reads_checked),
            ("writes", self.writes),
            ("log_reads", self.log_reads),
            ("messages", self.messages),
            ("forwarded", self.forwarded),
            ("messages_lost", self.messages_lost),
            ("messages_duplicated", self.messages_duplicated),
            ("recoveries_repeated", self.recoveries_repeated),
            ("full_disks", self.full_disks),
            ("preparations_refused", self.preparations_refused),
            ("starts_refused", self.starts_refused),
            ("refused_no_space", self.refused_no_space),
            ("refused_busy", self.refused_busy),
            ("transfers", self.transfers),
            ("tails", self.tails),
            ("records_tailed", self.records_tailed),
            ("changes_asked", self.changes_asked),
            ("changes_answered", self.changes_answered),
            ("members_added", self.members_added),
            ("learners_promoted", self.learners_promoted),
            ("members_removed", self.members_removed),
            ("leaders_removed", self.leaders_removed),
            ("lives_begun", self.lives_begun),
            ("disks_lost", self.disks_lost),
            ("removed_ended", self.removed_ended),
            ("snapshots_made", self.snapshots_made),
            ("snapshots_failed", self.snapshots_failed),
            ("snapshots_loaded", self.snapshots_loaded),
            ("snapshots_rotten", self.snapshots_rotten),
            ("absences", self.absences),
            ("fetches", self.fetches),
            ("fetches_failed", self.fetches_failed),
            ("fetches_resumed", self.fetches_resumed),
            ("snapshots_received", self.snapshots_received),
            ("snapshots_fetched", self.snapshots_fetched),
            ("snapshots_installed", self.snapshots_installed),
            ("trims", self.trims),
            ("tails_trimmed", self.tails_trimmed),
            ("purges", self.purges),
            ("segments_removed", self.segments_removed),
            ("chunks_sent", self.chunks_sent),
            ("chunks_received", self.chunks_received),
            ("chunks_bad", self.chunks_bad),
            ("chunks_resumed", self.chunks_resumed),
            ("chunks_refused", self.chunks_refused),
            ("chunks_mended", self.chunks_mended),
            ("seed", self.seed),
        ]
    }
}
