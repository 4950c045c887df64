//! The protocol's part of the zoo: with each deliberate bug built in, a script tells something else, or a test fails.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::paper::{elections, members, replication};
use super::{birth, follower, heartbeats, leader, lease, life, log, own_disk, pipeline, rationing, script, snapshots};
use crate::mutant::{self, Mutant};

enum Finder {
    Script(&'static str),
    Test(&'static str, fn()),
}

use Finder::{Script, Test};

macro_rules! test {
    ($test:path) => {
        Test(stringify!($test), $test)
    };
}

const ROWS: &[(Mutant, Finder)] = &[
    (Mutant::AckBeforeFlush, Script("append_lost_duplicated_reordered")),
    (Mutant::VoteNotFlushed, Script("restart_between_vote_and_answer")),
    (Mutant::SecondVote, Script("restart_between_vote_and_answer")),
    (Mutant::UpToDateByIndex, Script("figure_7")),
    (Mutant::LogNotCompared, test!(elections::s5_4_3_who_lacks_what_is_committed_is_not_elected)),
    (Mutant::NoPreVote, Script("pre_vote")),
    (Mutant::NoPreVote, test!(members::d4_2_3_who_was_removed_and_does_not_know_it_disturbs_nobody)),
    (Mutant::PreVoteBesideLeader, test!(members::d4_2_3_who_was_removed_and_does_not_know_it_disturbs_nobody)),
    (Mutant::VoteBesideLeader, test!(members::d4_2_3_who_was_removed_and_stands_disturbs_nobody)),
    (Mutant::VoteBesideLeader, test!(members::d4_2_3_a_vote_is_not_heard_while_a_leader_is)),
    (Mutant::NoCheckQuorum, Script("check_quorum")),
    (Mutant::TimerResetByAny, Script("election_timer")),
    (Mutant::CommitOfOldTerm, Script("figure_8")),
    (Mutant::CommitByAll, test!(replication::s5_3_the_slow_disks_of_a_minority_cost_no_commit_a_turn)),
    (Mutant::CommitBeyondMatch, Script("divergent_tail")),
    (Mutant::CommitBeyondMatch, test!(follower::commit_stops_at_what_matches_the_leader)),
    (Mutant::HeartbeatBeyondMatch, Script("divergent_tail")),
    (Mutant::DurableByIndex, test!(log::durable_follows_the_persist_and_not_the_index)),
    (Mutant::DurableByIndex, test!(follower::a_write_says_nothing_about_the_same_entry_that_is_written_again)),
    (Mutant::StaleReplyCounted, test!(leader::answers_of_another_term_or_from_strangers_mean_nothing)),
    (Mutant::BornByMajority, test!(birth::without_one_of_its_first_members_nothing_is_decided)),
    (Mutant::BornUnnamed, test!(birth::a_cluster_is_born_when_each_life_is_named_on_every_disk)),
    (Mutant::SnapshotAppliedAgain, test!(replication::s7_what_a_snapshot_holds_counts_as_committed_and_applied)),
    (Mutant::InstalledBelowCommit, Script("snapshot_answered_late")),
    (Mutant::InstalledBelowCommit, test!(snapshots::what_the_log_has_meanwhile_is_not_installed)),
    (Mutant::InstalledBeforeDurable, Script("snapshot_slow_follower")),
    (
        Mutant::InstalledBeforeDurable,
        test!(snapshots::nothing_is_said_of_a_snapshot_before_it_is_durable_that_it_counts),
    ),
    (Mutant::SnapshotMembershipForgotten, Script("snapshot_of_members")),
    (Mutant::SnapshotOfferedForEver, Script("snapshot_at_the_end")),
    (Mutant::LearnerCounted, Script("learner")),
    (Mutant::JointUsesOneHalf, Script("change_joint_under_partition")),
    (Mutant::ChangeWithoutOwnEntry, Script("change_before_own_entry")),
    (Mutant::ChangeEffectiveLate, Script("change_truncated")),
    (
        Mutant::CaughtUpAtOnce,
        test!(members::d4_2_1_who_is_to_vote_has_caught_up_in_a_round_shorter_than_an_election_timeout),
    ),
    (Mutant::RemovedNodeDisrupts, Script("change_removed_disturbs_nobody")),
    (Mutant::RemovedNodeDisrupts, test!(members::d4_2_3_who_was_removed_and_stands_disturbs_nobody)),
    (Mutant::JointLeftEarly, Script("change_joint_under_partition")),
    (Mutant::RemovedCounted, test!(life::who_was_removed_counts_no_more)),
    (Mutant::LivesNotTold, test!(life::of_two_lives_the_later_configuration_decides)),
    (Mutant::ProbesOneByOne, Script("conflict_hints")),
    (Mutant::NobodyRationed, test!(rationing::who_lacks_much_gets_half_as_much_again_as_clients_write)),
    (Mutant::RationedThoughNeeded, test!(rationing::who_is_needed_is_not_rationed)),
    (
        Mutant::RationedThoughNeeded,
        test!(rationing::who_is_needed_in_one_half_of_a_joint_configuration_is_not_rationed),
    ),
    (Mutant::RationedThoughItGoes, test!(rationing::who_lacks_what_may_go_is_not_rationed)),
    (Mutant::LateRejectionCounted, Script("reject_storm")),
    (Mutant::LateRejectionCounted, test!(pipeline::one_loss_costs_one_window_whenever_the_rejections_arrive)),
    (Mutant::LateRejectionCounted, test!(pipeline::a_window_is_sent_again_once_a_round_trip_at_most)),
    (Mutant::LossNotNoticed, Script("probe_lost")),
    (Mutant::WindowBytesIgnored, Script("append_window_lost")),
    (Mutant::WindowMessagesIgnored, Script("append_window")),
    (Mutant::UnawareRefuses, Script("vote_of_unaware_voter")),
    (Mutant::SilentHeartbeats, Script("heartbeat_backoff")),
    (Mutant::SilentHeartbeats, test!(heartbeats::who_is_silent_gets_a_fifth_of_the_heartbeats)),
    (Mutant::BackoffUnbounded, Script("heartbeat_backoff")),
    (Mutant::BackoffUnbounded, test!(heartbeats::who_comes_back_asks_for_no_votes)),
    (Mutant::BackoffWithoutMajority, Script("heartbeat_backoff")),
    (Mutant::BackoffWithoutMajority, test!(heartbeats::check_quorum_counts_who_comes_back)),
    (Mutant::ReadWithoutOwnEntry, Script("read_leader")),
    (Mutant::ReadUnconfirmed, Script("read_stale_leader")),
    (Mutant::ReadConfirmedByOlderRound, Script("read_leader")),
    (Mutant::LeaseOutlived, Script("read_lease")),
    (Mutant::LeaseOutlived, test!(lease::no_lease_is_held_where_another_has_committed)),
    (Mutant::LeaseReadOnce, Script("read_lease")),
    (Mutant::LeaseOutlivesTransfer, Script("read_lease_transfer")),
    (Mutant::LeaseOutlivesTransfer, test!(lease::no_lease_is_held_where_another_has_committed)),
    (Mutant::LeaseForgottenByRestart, Script("read_lease_restart")),
    (Mutant::StallEndsWithAny, test!(own_disk::flushes_that_overlap_and_take_too_long_are_a_stall)),
    (Mutant::StallHandsAtOnce, test!(own_disk::a_shared_disk_that_goes_on_here_last_costs_no_leadership)),
    (Mutant::StallHandsToAny, Script("slow_disk_shared")),
    (Mutant::DamageHandsToUnheard, Script("damaged_log")),
    (Mutant::DamageHandsToBehind, Script("damaged_log_alone")),
];

impl Finder {
    /// As the page on testing has it.
    fn name(&self) -> &'static str {
        let (Script(name) | Test(name, _)) = self;
        name.rsplit("::").next().unwrap_or(name).trim()
    }

    /// What it says of the core as it is now; nothing if it is content.
    fn said(&self) -> Option<String> {
        match self {
            Script(name) => script::difference(name),
            Test(_, run) => {
                let panic = catch_unwind(AssertUnwindSafe(run)).err()?;
                let words = panic.downcast_ref::<String>().cloned();
                Some(
                    words.or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned())).unwrap_or_default(),
                )
            }
        }
    }
}

#[test]
fn each_bug_of_the_core_is_found_by_its_script_or_test() {
    for (mutant, finder) in ROWS {
        let name = finder.name();
        let begun = std::time::Instant::now();
        assert_eq!(finder.said(), None, "{name} is content where there is no bug");
        let words = mutant::with(*mutant, || finder.said());
        let words = words.unwrap_or_else(|| panic!("{} is not found by {name}", mutant.name()));
        let first = words.lines().next().unwrap_or_default();
        println!("{}: {name}, {} ms: {first}", mutant.name(), begun.elapsed().as_millis());
    }
}

/// Each that stands in the code of the core has a row, and each row one in docs/testing.md that names the finder.
#[test]
fn each_bug_of_the_core_has_a_row_here_and_on_the_page() {
    let root = env!("CARGO_MANIFEST_DIR");
    let mut seen = 0;
    for file in std::fs::read_dir(format!("{root}/src/raft")).expect("the folder is there") {
        let path = file.expect("it can be listed").path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let source = std::fs::read_to_string(&path).expect("it can be read");
        for rest in source.split("Mutant::").skip(1) {
            let name: String = rest.chars().take_while(char::is_ascii_alphanumeric).collect();
            assert!(ROWS.iter().any(|(mutant, _)| format!("{mutant:?}") == name), "{name} of {path:?} has no row");
            seen += 1;
        }
    }
    assert!(seen > 30, "{seen} places");
    let page = std::fs::read_to_string(format!("{root}/docs/testing.md")).expect("the page is there");
    let (_, zoo) = page.split_once("Bugs of the protocol's core are found").expect("it has the table");
    for (mutant, finder) in ROWS {
        let row = zoo.lines().find(|line| line.starts_with(&format!("| `{}`", mutant.name())));
        let row = row.unwrap_or_else(|| panic!("{} is not on the page", mutant.name()));
        assert!(
            row.contains(&format!("`{}`", finder.name())),
            "{}: {} is not on the page",
            mutant.name(),
            finder.name()
        );
    }
}
