//! The protocol's tests: scripts that tell one situation each, random histories, and tables.

mod birth;
mod by_node;
mod change;
mod contradiction;
mod depth;
mod follower;
mod heartbeats;
mod hints;
mod leader;
mod lease;
mod life;
mod log;
mod model;
mod nearly_valid;
mod output;
mod own_disk;
mod paper;
mod pipeline;
mod quorum;
mod random;
mod rationing;
mod script;
mod snapshots;
mod voice;
mod words;
mod zoo;

use crate::sim::replicas as cluster;
