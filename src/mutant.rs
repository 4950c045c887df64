//! Deliberate bugs, one at a time, for the tests that must find them: docs/testing.md, "The zoo".
//!
//! Each stands where the correct code stands, as `mutant::is_on(Mutant::ThisBug)`. In a program as it is delivered that
//! is the constant `false`, and the bug is not in it. Unit tests, and a program built with `--cfg mutants`, have all of
//! them; one is on for a thread inside [`with`], or for the process if `TRILITH_MUTANT` in the environment names it.

macro_rules! mutants {
    ($($mutant:ident $name:literal $what:literal,)*) => {
        /// A deliberate bug.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[cfg_attr(not(any(test, mutants)), allow(dead_code, reason = "some stand in code behind a feature"))]
        pub enum Mutant {
            $(#[doc = $what] $mutant,)*
        }

        #[cfg(any(test, mutants))]
        impl Mutant {
            /// All of them, in the order of the zoo's tables.
            pub const ALL: &[Mutant] = &[$(Mutant::$mutant,)*];

            /// As `TRILITH_MUTANT` names it.
            pub fn name(self) -> &'static str {
                match self { $(Mutant::$mutant => $name,)* }
            }
        }
    };
}

mutants! {
    AckBeforeFlush "ack_before_flush" "A node's messages and a log's tickets do not wait for the flush.",
    FlushErrorSwallowed "flush_error_swallowed" "A failed write or flush counts as done.",
    FlushBeforeShortWriteFinished "flush_before_short_write_finished" "What a short write left is written behind the flush.",
    NoDirectoryFsync "no_directory_fsync" "Names are given and the directory is not flushed.",
    ChecksumWithoutLength "checksum_without_length" "A record's checksum does not cover its length.",
    ChecksumWithoutPlace "checksum_without_place" "Checksums have no salt, and no frame's place is compared.",
    DurableTailCut "durable_tail_cut" "A covered frame at the tail is judged torn.",
    ZerosAccepted "zeros_accepted" "Zeros end the log, whatever shows that more was there.",
    OlderGenerationAccepted "older_generation_accepted" "A frame of an older life of the file passes.",
    BatchHalfVisible "batch_half_visible" "A batch is written as two frames.",
    LogKeptBehindPurge "log_kept_behind_purge" "A log that begins behind another entry than its own keeps what lay behind that.",
    BufferReused "buffer_reused" "The next frame is built in the buffer of one that is on its way.",
    DsyncLeftOut "dsync_left_out" "Files are opened for writing without O_DSYNC.",
    VoteNotFlushed "vote_not_flushed" "A vote leaves before it is on the disk.",
    SecondVote "second_vote" "A restart forgets the vote.",
    UpToDateByIndex "up_to_date_by_index" "The longer log counts as the newer one, whatever its last term.",
    LogNotCompared "log_not_compared" "A vote goes to any log.",
    NoPreVote "no_pre_vote" "Who hears no leader stands at once.",
    PreVoteBesideLeader "pre_vote_beside_leader" "Who hears a leader tells another that it would vote for it.",
    VoteBesideLeader "vote_beside_leader" "Who hears a leader hears a candidate of a later term, too.",
    NoCheckQuorum "no_check_quorum" "A leader that hears no majority leads on.",
    TimerResetByAny "timer_reset_by_any" "Any message puts the next election off.",
    CommitOfOldTerm "commit_of_old_term" "An entry of an older term is committed by counting.",
    CommitByAll "commit_by_all" "An entry is committed when every voter holds it.",
    CommitBeyondMatch "commit_beyond_match" "A follower commits what it does not know to be its leader's.",
    HeartbeatBeyondMatch "heartbeat_beyond_match" "A heartbeat tells more of the commit index than is known to match there.",
    DurableByIndex "durable_by_index" "The end of a write counts for the entries that took the place of what it wrote.",
    StaleReplyCounted "stale_reply_counted" "An answer to an append of an older term counts.",
    BornByMajority "born_by_majority" "A cluster that is being born decides by majorities.",
    BornUnnamed "born_unnamed" "A cluster is born before its first members are named.",
    SnapshotAppliedAgain "snapshot_applied_again" "A start hands what a snapshot holds to the state machine again.",
    InstalledBelowCommit "installed_below_commit" "A snapshot is installed over a log that went on beyond it meanwhile.",
    InstalledBeforeDurable "installed_before_durable" "A follower says that it holds a snapshot before its superblock does.",
    SnapshotMembershipForgotten "snapshot_membership_forgotten" "The configuration of a snapshot is not taken over.",
    SnapshotOfferedForEver "snapshot_offered_for_ever" "A follower that holds the log's beginning is offered the snapshot all the same.",
    LearnerCounted "learner_counted" "A learner counts as a voter.",
    JointUsesOneHalf "joint_uses_one_half" "A joint configuration decides by its new voters alone.",
    ChangeWithoutOwnEntry "change_without_own_entry" "A change begins before an entry of the term is committed.",
    ChangeEffectiveLate "change_effective_late" "A configuration is in force only when it is committed.",
    CaughtUpAtOnce "caught_up_at_once" "A learner that holds anything has caught up.",
    RemovedNodeDisrupts "removed_node_disrupts" "A leader follows the term of a node that is no member.",
    JointLeftEarly "joint_left_early" "A joint configuration is left before it is committed.",
    RemovedCounted "removed_counted" "A leader counts everyone whom it still sends to, and so who was removed.",
    LivesNotTold "lives_not_told" "What an earlier life of a node says counts for the one that is a member.",
    AlreadyUnconfirmed "already_unconfirmed" "What is so already is answered by a leader that may lead no more.",
    StateBeforeLog "state_before_log" "Another node's state is taken over before this node's log has come to its point.",
    RecordsTrimmedForMap "records_trimmed_for_map" "Where the log is for the map alone, records that may be read are trimmed.",
    PurgedThoughReadable "purged_though_readable" "A node's log loses records that a snapshot holds, and that may be read.",
    PurgedToNewestSnapshot "purged_to_newest_snapshot" "A node's log loses what the newest snapshot alone holds.",
    SnapshotBeyondLogCounted "snapshot_beyond_log_counted" "A snapshot that the log has not come to counts as one of the two that are kept.",
    SnapshotNotReadBack "snapshot_not_read_back" "A snapshot counts when it was flushed, whatever the disk gives back.",
    OfferNotKept "offer_not_kept" "A leader's log loses what goes with a snapshot that a member is fetching.",
    ClockJumpBelieved "clock_jump_believed" "What goes by its age goes by whatever the wall clock shows.",
    RoomNotCounted "room_not_counted" "A leader takes what may find no segment of its log.",
    TrimMovesBack "trim_moves_back" "A trim below an earlier one makes readable what was trimmed.",
    ProbesOneByOne "probes_one_by_one" "A leader does not look at the hint, and asks for one entry after the other.",
    LateRejectionCounted "late_rejection_counted" "A rejection of an older attempt begins another one.",
    LossNotNoticed "loss_not_noticed" "A follower whose answer is overdue is not probed again.",
    WindowBytesIgnored "window_bytes_ignored" "A leader sends on when the window is full of bytes.",
    WindowMessagesIgnored "window_messages_ignored" "A leader sends on when the window is full of messages.",
    NobodyRationed "nobody_rationed" "A follower that lacks much gets it as fast as it takes it, whatever clients write.",
    RationedThoughNeeded "rationed_though_needed" "A follower that lacks much is rationed though no commit does without it.",
    RationedThoughItGoes "rationed_though_it_goes" "A follower is rationed though the log may lose what it lacks.",
    UnawareRefuses "unaware_refuses" "A node that is no voter as far as it knows gives no vote.",
    SilentHeartbeats "silent_heartbeats" "A follower that does not answer gets heartbeats as often as others.",
    BackoffUnbounded "backoff_unbounded" "The interval of heartbeats to a silent follower doubles without a bound.",
    BackoffWithoutMajority "backoff_without_majority" "Silent followers are left out though the others are no majority.",
    ReadWithoutOwnEntry "read_without_own_entry" "A read gets its index before an entry of the term is committed.",
    ReadUnconfirmed "read_unconfirmed" "A read is served before a majority has confirmed the leader.",
    ReadConfirmedByOlderRound "read_confirmed_by_older_round" "A round that began before a read confirms it.",
    ForwardRefused "forward_refused" "Who gives up on what it has passed on says that it was refused.",
    ForwardAnswersMixed "forward_answers_mixed" "An answer to what was passed on before a restart is taken by its number.",
    SessionLimitsDiffer "session_limits_differ" "Every second node keeps one session more.",
    SessionOldestGoes "session_oldest_goes" "The session goes that was opened first, and not the one that was not used for longest.",
    SessionAnswerMisnumbered "session_answer_misnumbered" "Who asks again is told the answer to the request before.",
    SessionReopened "session_reopened" "A leader takes the requests of a session that is gone.",
    SessionRunsOn "session_runs_on" "A command of a session that went before it is run.",
    SnapshotManifestBeforeChunks "snapshot_manifest_before_chunks" "A snapshot's manifest is written and its chunks are not flushed.",
    SnapshotRenamedBeforeFlush "snapshot_renamed_before_flush" "A snapshot gets its name before its manifest is flushed.",
    SnapshotNamedBeforeDurable "snapshot_named_before_durable" "The superblock names a snapshot that is not durable yet.",
    ChunkUnverified "chunk_unverified" "A chunk counts as it comes from another node.",
    ResumedUnverified "resumed_unverified" "What has come of any snapshot at a point is gone on with as that of the one that is wanted.",
    ReceivedBeforeFlush "received_before_flush" "A snapshot gets its name before its chunks are flushed.",
    SnapshotBeforeLog "snapshot_before_log" "A snapshot is made of what this node's log does not hold durably.",
    SnapshotWithoutSessions "snapshot_without_sessions" "A node starts from a snapshot with an empty table of sessions.",
    SnapshotDamagedIsEmpty "snapshot_damaged_is_empty" "A snapshot that cannot be read counts as one of an empty state.",
    FedBeforeDurable "fed_before_durable" "A durable state machine is fed what this node's own log does not hold durably.",
    SessionsKeptApart "sessions_kept_apart" "A durable state machine keeps its state in one transaction and the sessions in the next.",
    LeaseOutlived "lease_outlived" "A read is served by lease after the lease has ended.",
    LeaseReadOnce "lease_read_once" "A read by lease is not tested again when the state was read.",
    LeaseOutlivesTransfer "lease_outlives_transfer" "A lease does not end when leadership is handed over.",
    LeaseForgottenByRestart "lease_forgotten_by_restart" "A voter that starts is bound by no promise.",
    StallEndsWithAny "stall_ends_with_any" "A disk that finishes any flush does not stall, however old others are.",
    StallHandsAtOnce "stall_hands_at_once" "A leader whose disk stalls hands over as soon as others are heard to be ahead.",
    StallHandsToAny "stall_hands_to_any" "A leader whose disk stalls hands over though the others' stall as well.",
    DamageHandsToUnheard "damage_hands_to_unheard" "A leader whose log is damaged hands over to who held most, heard or not.",
    DamageHandsToBehind "damage_hands_to_behind" "A leader whose log is damaged hands over to whoever is heard, whatever it lacks.",
    OpenraftToldBeforeFlush "openraft_told_before_flush" "openraft's callback does not wait for the flush.",
    OpenraftVoteNotFlushed "openraft_vote_not_flushed" "openraft's vote counts as saved when the log has taken it.",
    OpenraftVoteNotSaved "openraft_vote_not_saved" "openraft's vote is kept in memory alone.",
}

#[cfg(test)]
pub use switch::with;
#[cfg(any(test, mutants))]
pub use switch::{inherit, is_on};

/// Whether this bug is built in: never.
#[cfg(not(any(test, mutants)))]
pub const fn is_on(_: Mutant) -> bool {
    false
}

/// What a thread that is to begin must know: nothing.
#[cfg(not(any(test, mutants)))]
pub const fn inherit() -> Inherited {
    Inherited
}

/// Nothing, for a thread that begins.
#[cfg(not(any(test, mutants)))]
#[derive(Clone, Copy, Debug)]
pub struct Inherited;

#[cfg(not(any(test, mutants)))]
impl Inherited {
    /// To be called by the new thread.
    pub const fn take_over(self) {}
}

#[cfg(any(test, mutants))]
mod switch {
    use std::cell::Cell;

    use super::Mutant;

    thread_local! {
        static ON: Cell<Option<Mutant>> = Cell::new(named());
    }

    /// The one that the environment names. Panics if there is none of this name.
    fn named() -> Option<Mutant> {
        let name = std::env::var("TRILITH_MUTANT").ok()?;
        let found = Mutant::ALL.iter().copied().find(|mutant| mutant.name() == name);
        Some(found.unwrap_or_else(|| panic!("TRILITH_MUTANT: there is no {name:?}")))
    }

    /// Whether this bug is on for this thread.
    pub fn is_on(mutant: Mutant) -> bool {
        ON.get() == Some(mutant)
    }

    /// Runs `call` with this bug on.
    #[cfg(test)]
    pub fn with<T>(mutant: Mutant, call: impl FnOnce() -> T) -> T {
        struct Reset(Option<Mutant>);
        impl Drop for Reset {
            fn drop(&mut self) {
                ON.set(self.0);
            }
        }
        let _reset = Reset(ON.replace(Some(mutant)));
        call()
    }

    /// What is on for a thread, for another that it starts.
    #[derive(Clone, Copy, Debug)]
    pub struct Inherited(Option<Mutant>);

    /// What a thread that is to begin must know.
    pub fn inherit() -> Inherited {
        Inherited(ON.get())
    }

    impl Inherited {
        /// To be called by the new thread.
        pub fn take_over(self) {
            ON.set(self.0);
        }
    }
}
