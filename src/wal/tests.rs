//! The log under faults: a rig that carries out its effects on a simulated disk, a model of what it must hold, and one
//! file of tests per theme.

mod bytes;
mod crash;
mod errors;
mod identity;
mod mapped;
mod model;
mod names;
mod page_cache;
mod random;
mod reads;
mod recovery_table;
mod regressions;
mod repair;
mod rig;
mod rot;
mod rotation;
mod tail;
mod tail_cache;
