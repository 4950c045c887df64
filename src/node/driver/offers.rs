//! Snapshots that members were offered, and may be fetching: what they need for that stays for a while.
//!
//! To fetch takes long, and is of use only as long as the leader's log reaches back to the point and the files are there.
//! Without this, whoever fetches more slowly than snapshots are made would begin with a newer one again and again. One that
//! hangs must not fill the disk: what a member was offered stays for as long as the tail of followers, from the first offer
//! on, and no longer, however often it is offered that again or asks for it. Then a newer one has its own time.

use std::collections::BTreeMap;

use crate::limits::TICK;
use crate::mutant::{self, Mutant};
use crate::raft::{Body, Message};
use crate::types::{Index, LogId, NodeId};

/// Who is offered nothing for so long, ten seconds, has what it needs, or is gone.
const SILENCE_TICKS_MAX: u64 = 1000;
/// An hour: nobody gets longer.
const AGE_TICKS_MAX: u64 = 360_000;

/// By member.
#[derive(Debug, Default)]
pub(super) struct Offers(BTreeMap<NodeId, Offer>);

#[derive(Clone, Copy, Debug)]
struct Offer {
    /// It goes on with this one though it is offered newer ones, also after an error: unless it was told that nobody has it
    /// any more, or is started anew.
    /// An earlier leader's offer may be what it fetches: whatever it asks for counts.
    point: LogId,
    /// The newest that was its point.
    newest: Index,
    /// Since the first offer of the newest.
    age_ticks: u64,
    /// The time of every point up to here is over: nothing is kept for it, however often it is offered or asked for.
    over: Index,
    /// Since the last offer: only who is heard gets any.
    silent_ticks: u64,
}

impl Offer {
    fn is_over(&self) -> bool {
        self.newest <= self.over
    }
}

impl Offers {
    /// A message leaves: if it is an offer, what it offers is wanted from now on, or what was before.
    pub fn note(&mut self, message: &Message) {
        let Body::Snapshot { base, .. } = message.body else { return };
        let (point, newest) = (base.point, base.point.index);
        let new = |over| Offer { point, newest, age_ticks: 0, over, silent_ticks: 0 };
        let offer = self.0.entry(message.to).or_insert_with(|| new(Index::ZERO));
        // The log reaches back to it no more, or need not: it begins with the new one.
        if base.begin_after.index > offer.point.index || (offer.is_over() && newest > offer.over) {
            *offer = new(offer.over);
        }
        offer.silent_ticks = 0;
    }

    /// It asks this node for the snapshot at this point, to which the log reaches back: it fetches that one, from here or
    /// from another. Nobody gets more time for an older one.
    pub fn asked(&mut self, node: NodeId, point: LogId) {
        let Some(offer) = self.0.get_mut(&node).filter(|offer| point.index > offer.over) else { return };
        offer.point = point;
        if point.index > offer.newest {
            (offer.newest, offer.age_ticks) = (point.index, 0);
        }
    }

    /// This node has begun anew, and knows of no offer: it goes by the next one.
    pub fn forget(&mut self, node: NodeId) {
        self.0.remove(&node);
    }

    /// A tick has passed. What was offered stays for so long.
    pub fn tick(&mut self, milliseconds_max: u64) {
        let age_ticks_max = (milliseconds_max / TICK.as_millis() as u64).min(AGE_TICKS_MAX);
        self.0.retain(|_, offer| {
            offer.age_ticks += 1;
            offer.silent_ticks += 1;
            if offer.age_ticks > age_ticks_max {
                offer.over = offer.over.max(offer.newest);
            }
            offer.silent_ticks <= SILENCE_TICKS_MAX
        });
    }

    /// The last entry that nobody needs who fetches.
    pub fn needed_behind(&self) -> Option<Index> {
        if mutant::is_on(Mutant::OfferNotKept) {
            return None;
        }
        self.kept().map(|point| point.index).min()
    }

    /// Snapshots that may be being fetched from here.
    pub fn points(&self) -> Vec<LogId> {
        let points: std::collections::BTreeSet<LogId> = self.kept().collect();
        points.into_iter().collect()
    }

    fn kept(&self) -> impl Iterator<Item = LogId> {
        self.0.values().filter(|offer| !offer.is_over()).map(|offer| offer.point)
    }
}
