//! The log under faults: a rig that carries out its effects on a simulated disk, a model of what it must hold, and one
//! file of tests per theme.

mod ahead;
mod bytes;
mod copying;
mod crash;
mod crowded;
mod dead;
mod errors;
mod forged;
mod given_up;
mod holes;
mod identity;
mod installed;
mod lost;
mod mapped;
mod names;
mod page_cache;
mod places;
mod proofs;
mod random;
mod reads;
mod ready;
mod recovery_table;
mod regressions;
mod repair;
mod resumed;
mod retention;
mod rig;
mod rot;
mod rotation;
mod seals;
mod silent;
mod stale;
mod starts;
mod stretch;
mod surplus;
mod suspects;
mod tail;
mod tail_cache;
mod voter;
mod windows;
mod zoo;

use crate::sim::log::model;
