//! The newest connection of one kind to one node.

use std::sync::{Mutex, MutexGuard};

use quinn::Connection;

use super::close::CloseReason;
use super::context;

/// Holds one connection; an older one was closed when it came.
#[derive(Default, Debug)]
pub(super) struct Slot {
    newest: Mutex<Option<Connection>>,
}

impl Slot {
    pub(super) fn current(&self) -> Option<Connection> {
        self.newest().clone()
    }

    /// Makes this the newest connection; an older one is closed.
    pub(super) fn replace(&self, connection: &Connection) {
        let old = self.newest().replace(connection.clone());
        if let Some(old) = old {
            context::close(&old, CloseReason::Replaced);
        }
    }

    /// Forgets the connection, unless a newer one has taken its place.
    pub(super) fn forget(&self, connection: &Connection) {
        let mut newest = self.newest();
        if newest.as_ref().is_some_and(|newest| newest.stable_id() == connection.stable_id()) {
            *newest = None;
        }
    }

    pub(super) fn close(&self, reason: CloseReason) {
        if let Some(connection) = self.newest().as_ref() {
            context::close(connection, reason);
        }
    }

    fn newest(&self) -> MutexGuard<'_, Option<Connection>> {
        self.newest.lock().expect("no holder of this lock can panic")
    }
}
