//! How far a group is durable, to read and to wait for.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::error::Ended;
use super::followers::{Follower, Followers};
use super::waiting;
use crate::types::{GroupId, Index};

/// Watches the durable end of a group. Made by [`super::Wal::watch`]; reads no disk, and keeps no directory in use.
///
/// Both conditions can be waited for by a thread and awaited by a task, as a [`super::Pending`] can, and both are over
/// with [`Ended`] when the log is closed or has failed before they hold.
#[derive(Debug)]
pub struct DurableWatch {
    follower: Follower,
}

/// Waits for a group's durable end. It gives the index of the group's last durable entry.
#[derive(Debug)]
#[must_use = "it does nothing unless it is waited for"]
pub struct Reached<'w> {
    follower: &'w Follower,
    /// None for any change.
    wanted: Option<Index>,
}

impl DurableWatch {
    pub(super) fn new(followers: &Arc<Followers>, group: GroupId) -> DurableWatch {
        DurableWatch { follower: followers.follow(group) }
    }

    /// The group's last durable entry, or the one before its first.
    pub fn durable(&self) -> Index {
        self.follower.durable()
    }

    #[cfg(test)]
    pub(super) fn follower(&self) -> &Follower {
        &self.follower
    }

    /// Until the group's last durable entry is `index` or a later one: at once, if it is.
    pub fn at_least(&mut self, index: Index) -> Reached<'_> {
        Reached { follower: &self.follower, wanted: Some(index) }
    }

    /// Until something of the group has become durable since this was waited for last, or since the watch was made: an
    /// append, a truncate or a purge. None is missed, and many may be told as one.
    pub fn changed(&mut self) -> Reached<'_> {
        Reached { follower: &self.follower, wanted: None }
    }
}

impl Reached<'_> {
    /// Blocks until it is so.
    ///
    /// # Errors
    /// If the log has ended before.
    pub fn wait(self) -> Result<Index, Ended> {
        waiting::wait(|context| self.poll_now(context))
    }

    /// Blocks until it is so, and no longer than `time`: pending means that it was over before.
    pub fn wait_timeout(self, time: Duration) -> Poll<Result<Index, Ended>> {
        waiting::wait_timeout(time, |context| self.poll_now(context))
    }

    fn poll_now(&self, context: &mut Context<'_>) -> Poll<Result<Index, Ended>> {
        let said = match self.wanted {
            Some(wanted) => self.follower.reached(wanted, context.waker()),
            None => self.follower.changed(context.waker()),
        };
        said.map_or(Poll::Pending, Poll::Ready)
    }
}

impl Future for Reached<'_> {
    type Output = Result<Index, Ended>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.poll_now(context)
    }
}

impl Drop for Reached<'_> {
    fn drop(&mut self) {
        self.follower.stop_waiting();
    }
}
