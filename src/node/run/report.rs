//! What a node tells its operator of the protocol's events.
//!
//! A node that finds no majority asks for votes twice a second, for as long as that lasts. It is told at once, and then
//! once in a while with how often it has happened; the next leader, or another role, is told at once again.

use std::time::{Duration, Instant};

use crate::node::driver::SnapshotReport;
use crate::raft::{Event, Role};
use crate::wal;

/// While nothing but failed attempts at an election happens, they are told so often.
const REMINDER: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Report {
    attempts: Attempts,
    /// What could not be read for a follower, and when that was told: it is tried again with each heartbeat.
    unreadable: Option<(String, Instant)>,
}

/// Attempts to find out whether an election could be won, since the last event of another kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Attempts {
    count: u64,
    told_at: Option<Instant>,
}

/// What is to be said of a change of role.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Said {
    Nothing,
    Change,
    /// So many attempts in vain.
    Attempts(u64),
}

impl Report {
    /// What is told of the log, once in a while if it is the same.
    pub fn unreadable(&mut self, error: &wal::Error) {
        if let Some(error) = self.news_of_unreadable(error.to_string(), Instant::now()) {
            tracing::error!(
                "a follower needs what cannot be read here, and waits: {error}; leadership is handed over once in ten minutes, \
                 if another voter can lead (at once: `trilith cluster transfer`); see `trilith wal verify`"
            );
        }
    }

    fn news_of_unreadable(&mut self, error: String, now: Instant) -> Option<&str> {
        let is_known = |(told, at): &(String, Instant)| *told == error && now.duration_since(*at) < REMINDER;
        if self.unreadable.as_ref().is_some_and(is_known) {
            return None;
        }
        let (told, _) = self.unreadable.insert((error, now));
        Some(told)
    }

    pub fn event(&mut self, event: &Event) {
        match event {
            Event::RoleChanged { role, term } => match self.attempts.said(*role, Instant::now()) {
                Said::Change => tracing::info!(?role, %term, "role changed"),
                Said::Attempts(attempts) => {
                    tracing::warn!(attempts, %term, "no majority answers: no leader can be elected, it is tried on and on");
                }
                Said::Nothing => tracing::debug!(?role, %term, "role changed"),
            },
            Event::LeaderChanged { leader, term } => {
                if leader.is_some() {
                    self.attempts = Attempts::default();
                }
                tracing::info!(?leader, %term, "leader changed");
            }
            Event::QuorumLost { term } => tracing::warn!(%term, "no majority was heard: stepped down"),
            Event::DiskStalls { to: Some(to) } => {
                tracing::warn!(node = %to, "the disk has not finished a flush for long, others have: leadership is handed over")
            }
            Event::SegmentHangs { to } => tracing::warn!(
                node = %to,
                "the making of the next segment of the log has not ended for long, and clients wait for it: leadership is handed over"
            ),
            Event::LogDamaged { to, follower, index } => tracing::warn!(
                node = %to, %follower, %index,
                "what a follower needs next cannot be read from this log: leadership is handed over"
            ),
            Event::DiskStalls { to: None } => {
                tracing::warn!("the disk has not finished a flush for long, and nobody took over: stepped down")
            }
            Event::Replaced { from } => tracing::info!(%from, "entries that were never committed were replaced"),
            Event::MembershipChanged { index } => tracing::info!(%index, "the members have changed"),
            Event::MembershipCommitted { index } => tracing::info!(%index, "the change of the members is committed"),
            // The node ends with it, and says it as it does.
            Event::Contradiction(_) => {}
            Event::SnapshotNeeded { peer } => tracing::warn!(node = %peer, "lacks entries that the log has no more"),
            // Who fetches it says what comes of it.
            Event::SnapshotOffered { from, base } => {
                tracing::debug!(node = %from, point = %base.point, "offers a snapshot")
            }
            Event::VoiceLost { peer, acknowledged, holds } => tracing::error!(
                node = %peer, %acknowledged, %holds,
                "has lost what it had acknowledged, and counts for nothing any more: `trilith cluster remove {peer}`, then \
                 `trilith init --config FILE --join` on its machine"
            ),
        }
    }
}

/// What became of snapshots.
pub(super) fn snapshot(report: &SnapshotReport) {
    match report {
        SnapshotReport::Made(made) => {
            tracing::info!(point = %made.point, bytes = made.bytes, milliseconds = made.milliseconds, "snapshot made");
        }
        SnapshotReport::Failed { point, error } => tracing::error!(
            %point, "a snapshot failed, and the log goes on; the next point is tried again: {error}; {}", error.next_step()
        ),
        SnapshotReport::Installed(made) => {
            tracing::info!(point = %made.point, bytes = made.bytes, "another node's snapshot is this node's state");
        }
        SnapshotReport::NotFetched { point, what } => {
            tracing::error!(%point, "a snapshot that this node needs could not be had, and is tried again: {what}");
        }
        SnapshotReport::NotTaken { point } => {
            tracing::error!(%point, "this node needs a snapshot, and its state machine takes none: it cannot catch up");
        }
        SnapshotReport::Mended { point } => {
            tracing::info!(%point, "a snapshot that was found rotten is whole again: what was lost came from other nodes");
        }
        SnapshotReport::NotRemoved { error } => {
            tracing::error!("older snapshots could not be removed: {error}; {}", error.next_step());
        }
        SnapshotReport::RecordsInTheWay { last } => tracing::warn!(
            "the log is kept for the map alone, and records up to {last} may still be read: nothing of it goes before \
             `trilith log trim --before {}`",
            last.next()
        ),
        SnapshotReport::NoneGiven => {
            tracing::warn!("the state machine gives no snapshots: none is made, and a start reads the whole log");
        }
    }
}

impl Attempts {
    fn said(&mut self, role: Role, now: Instant) -> Said {
        match role {
            Role::PreCandidate => {
                self.count += 1;
                match self.told_at {
                    None => {
                        self.told_at = Some(now);
                        Said::Change
                    }
                    Some(told_at) if now.duration_since(told_at) >= REMINDER => {
                        self.told_at = Some(now);
                        Said::Attempts(self.count)
                    }
                    Some(_) => Said::Nothing,
                }
            }
            // Back from an attempt that nobody answered, or that was refused.
            Role::Follower if self.count > 0 => Said::Nothing,
            Role::Follower => Said::Change,
            Role::Candidate | Role::Leader => {
                *self = Attempts::default();
                Said::Change
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_in_vain_are_told_once_and_then_once_in_a_while() {
        let (mut attempts, begin) = (Attempts::default(), Instant::now());
        let mut said = Vec::new();
        for half_second in 0..300 {
            let now = begin + Duration::from_millis(500 * half_second);
            said.push(attempts.said(Role::PreCandidate, now));
            assert_eq!(attempts.said(Role::Follower, now), Said::Nothing);
        }
        let told: Vec<&Said> = said.iter().filter(|said| **said != Said::Nothing).collect();
        assert_eq!(told, [&Said::Change, &Said::Attempts(121), &Said::Attempts(241)]);
    }

    #[test]
    fn what_cannot_be_read_is_told_once_in_a_while_and_what_is_new_at_once() {
        let (mut report, begin) = (Report::default(), Instant::now());
        let mut told = |error: &str, milliseconds| {
            report.news_of_unreadable(error.to_owned(), begin + Duration::from_millis(milliseconds)).is_some()
        };
        assert!(told("one", 0) && !told("one", 50) && !told("one", 59_000));
        assert!(told("two", 59_050) && !told("two", 59_100));
        assert!(told("two", 119_060));
    }

    #[test]
    fn whatever_comes_of_them_is_told() {
        let (mut attempts, now) = (Attempts::default(), Instant::now());
        for role in [Role::Candidate, Role::Leader] {
            assert_eq!(attempts.said(Role::PreCandidate, now), Said::Change);
            assert_eq!(attempts.said(Role::PreCandidate, now), Said::Nothing);
            assert_eq!(attempts.said(role, now), Said::Change);
        }
        assert_eq!(attempts.said(Role::Follower, now), Said::Change);
    }
}
