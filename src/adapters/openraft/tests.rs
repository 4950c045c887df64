//! openraft's own suite on the adapter, its calls again on the bare core under cuts of power, and a whole node.

mod durable;
mod machine;
mod mapping;
mod node;
mod recorder;
mod refused;
mod replay;
mod rig;
mod suite;

use std::io::Cursor;

use openraft::{CommittedLeaderId, Entry, EntryPayload, LogId};

openraft::declare_raft_types!(
    pub Types: D = String, R = (), NodeId = u64, Node = (), Entry = Entry<Types>, SnapshotData = Cursor<Vec<u8>>
);

/// An entry's name: term, leader, index.
fn id(term: u64, leader: u64, index: u64) -> LogId<u64> {
    LogId::new(CommittedLeaderId::new(term, leader), index)
}

fn entry(id: LogId<u64>, text: impl Into<String>) -> Entry<Types> {
    Entry { log_id: id, payload: EntryPayload::Normal(text.into()) }
}
