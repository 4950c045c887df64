//! What a node's core and the links to other nodes tell each other, each in its own words.

use crate::machine::StateMachine;
use crate::net::{Correspondents, KnownLife, NotForwarded, Refusal};
use crate::node::driver::Driver;
use crate::raft::Replica;
use crate::superblock;
use crate::types::NodeId;

/// In which life, and in which start of it, the others were met.
pub(super) fn lives_met<M: StateMachine>(driver: &Driver<M>) -> impl Iterator<Item = (NodeId, KnownLife)> {
    driver.lives_met().iter().map(|(node, met)| {
        let superblock::Met { incarnation, boot, has_lost } = *met;
        (*node, KnownLife { incarnation, boot, has_lost })
    })
}

pub(super) fn correspondents(replica: &Replica) -> Correspondents {
    let forming = replica.membership().forming;
    Correspondents { configuration: replica.membership_id(), members: replica.correspondents(), forming }
}

/// What a client is told whose request was not passed on.
pub(super) fn refusal_to_forward(why: NotForwarded) -> Refusal {
    match why {
        NotForwarded::NoLink => Refusal::Unavailable { reason: "this node has no link to the leader".to_owned() },
        NotForwarded::Full => Refusal::Busy,
    }
}
