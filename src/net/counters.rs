//! How often things happened that an operator wants to know of. Numbers only: no name and no payload.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$meaning:meta])* $name:ident,)*) => {
        /// Since the start of the process.
        #[derive(Default, Debug)]
        pub(super) struct Counters { $(pub(super) $name: Counter,)* }

        /// A reading of all counters.
        #[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
        pub struct CounterValues { $($(#[$meaning])* pub $name: u64,)* }

        impl Counters {
            pub(super) fn read(&self) -> CounterValues {
                CounterValues { $($name: self.$name.0.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Handshakes that failed: a certificate refused on either side, or no answer in time.
    handshakes_failed,
    /// Handshakes not begun because too many were under way.
    handshakes_refused,
    /// Connections whose certificate does not go with the protocol.
    roles_refused,
    /// Connections or streams over the bound.
    connections_refused,
    /// Nodes refused by their hello: cluster, id, version, fingerprint, not a member.
    hellos_refused,
    /// Connections closed for a frame that was not understood.
    malformed,
    /// Connections or streams closed because the first frame did not come in time.
    slow,
    /// Messages to a peer that was away or behind: Raft sends them again.
    messages_dropped,
    /// Clients closed because they did not read their answers.
    clients_not_reading,
    /// Connections closed because their certificate was revoked or had expired when the identity was reloaded.
    revoked,
    /// Links to peers that came up.
    peers_up,
    /// Clients that were welcomed.
    clients_up,
}

#[derive(Default, Debug)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}
