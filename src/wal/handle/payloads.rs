//! What an entry that a caller made must be, so that its reader does not take it for damage.

use super::error::Refused;
use crate::checksum::Checksum;
use crate::codec;
use crate::types::{Entry, Payload};

/// Looks at every byte: to be called when nothing is locked.
pub(super) fn check_payloads(entries: &[Entry]) -> Result<(), Refused> {
    let refused = |entry: &Entry| fault(&entry.payload).map(|fault| Refused::Payload { entry: entry.id, fault });
    entries.iter().find_map(refused).map_or(Ok(()), Err)
}

fn fault(payload: &Payload) -> Option<&'static str> {
    match payload {
        Payload::Noop | Payload::Trim { .. } | Payload::SnapshotPoint => None,
        Payload::Data(data) => {
            (Checksum::of(&data.bytes) != data.checksum).then_some("its checksum is not that of its bytes")
        }
        Payload::Membership(_) => {
            let read = codec::decode_payload(codec::payload_kind(payload), codec::payload_data(payload));
            (read.as_ref() != Ok(payload)).then_some("its configuration has no encoding")
        }
    }
}
