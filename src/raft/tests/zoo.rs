//! The protocol's part of the zoo: with each deliberate bug built in, a script tells something else, or a test fails.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{birth, follower, leader, lease, life, log, script};
use crate::mutant::{self, Mutant};

enum Finder {
    Script(&'static str),
    Test(&'static str, fn()),
}

use Finder::{Script, Test};

const ROWS: &[(Mutant, Finder)] = &[
    (Mutant::AckBeforeFlush, Script("append_lost_duplicated_reordered")),
    (Mutant::VoteNotFlushed, Script("restart_between_vote_and_answer")),
    (Mutant::SecondVote, Script("restart_between_vote_and_answer")),
    (Mutant::UpToDateByIndex, Script("figure_7")),
    (Mutant::NoPreVote, Script("pre_vote")),
    (Mutant::NoCheckQuorum, Script("check_quorum")),
    (Mutant::TimerResetByAny, Script("election_timer")),
    (Mutant::CommitOfOldTerm, Script("figure_8")),
    (Mutant::CommitBeyondMatch, Script("divergent_tail")),
    (
        Mutant::CommitBeyondMatch,
        Test("commit_stops_at_what_matches_the_leader", follower::commit_stops_at_what_matches_the_leader),
    ),
    (Mutant::HeartbeatBeyondMatch, Script("divergent_tail")),
    (
        Mutant::DurableByIndex,
        Test("durable_follows_the_persist_and_not_the_index", log::durable_follows_the_persist_and_not_the_index),
    ),
    (
        Mutant::StaleReplyCounted,
        Test(
            "answers_of_another_term_or_from_strangers_mean_nothing",
            leader::answers_of_another_term_or_from_strangers_mean_nothing,
        ),
    ),
    (
        Mutant::BornByMajority,
        Test(
            "without_one_of_its_first_members_nothing_is_decided",
            birth::without_one_of_its_first_members_nothing_is_decided,
        ),
    ),
    (
        Mutant::BornUnnamed,
        Test(
            "a_cluster_is_born_when_each_life_is_named_on_every_disk",
            birth::a_cluster_is_born_when_each_life_is_named_on_every_disk,
        ),
    ),
    (Mutant::LearnerCounted, Script("learner")),
    (Mutant::JointUsesOneHalf, Script("change_joint_under_partition")),
    (Mutant::ChangeWithoutOwnEntry, Script("change_before_own_entry")),
    (Mutant::ChangeEffectiveLate, Script("change_truncated")),
    (Mutant::RemovedNodeDisrupts, Script("change_removed_disturbs_nobody")),
    (Mutant::JointLeftEarly, Script("change_joint_under_partition")),
    (Mutant::RemovedCounted, Test("who_was_removed_counts_no_more", life::who_was_removed_counts_no_more)),
    (
        Mutant::LivesNotTold,
        Test("of_two_lives_the_later_configuration_decides", life::of_two_lives_the_later_configuration_decides),
    ),
    (Mutant::ProbesOneByOne, Script("conflict_hints")),
    (Mutant::LateRejectionCounted, Script("reject_storm")),
    (Mutant::LossNotNoticed, Script("probe_lost")),
    (Mutant::WindowIgnored, Script("append_window_lost")),
    (Mutant::UnawareRefuses, Script("vote_of_unaware_voter")),
    (Mutant::SilentHeartbeats, Script("heartbeat_backoff")),
    (Mutant::BackoffUnbounded, Script("heartbeat_backoff")),
    (Mutant::BackoffWithoutMajority, Script("heartbeat_backoff")),
    (Mutant::ReadWithoutOwnEntry, Script("read_leader")),
    (Mutant::ReadUnconfirmed, Script("read_stale_leader")),
    (Mutant::ReadConfirmedByOlderRound, Script("read_leader")),
    (Mutant::LeaseOutlived, Script("read_lease")),
    (Mutant::LeaseOutlived, Test("no_lease_is_held_where_another_has_committed", NO_LEASE)),
    (Mutant::LeaseInTransfer, Script("read_lease_transfer")),
    (Mutant::LeaseInTransfer, Test("no_lease_is_held_where_another_has_committed", NO_LEASE)),
    (Mutant::PromiseForgotten, Script("read_lease_restart")),
];

const NO_LEASE: fn() = lease::no_lease_is_held_where_another_has_committed;

/// What a finder says of the core as it is now; nothing if it is content.
fn said(finder: &Finder) -> Option<String> {
    match finder {
        Script(name) => script::difference(name),
        Test(_, run) => {
            let panic = catch_unwind(AssertUnwindSafe(run)).err()?;
            let words = panic.downcast_ref::<String>().cloned();
            Some(words.or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned())).unwrap_or_default())
        }
    }
}

#[test]
fn each_bug_of_the_core_is_found_by_its_script_or_test() {
    for (mutant, finder) in ROWS {
        let (Script(name) | Test(name, _)) = finder;
        assert_eq!(said(finder), None, "{name} is content where there is no bug");
        let words = mutant::with(*mutant, || said(finder));
        let words = words.unwrap_or_else(|| panic!("{} is not found by {name}", mutant.name()));
        let first = words.lines().next().unwrap_or_default();
        println!("{}: {name}: {first}", mutant.name());
    }
}
