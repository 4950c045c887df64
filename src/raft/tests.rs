//! The protocol's tests: scripts that tell one situation each, random histories, and tables.

mod cluster;
mod follower;
mod leader;
mod log;
mod own_disk;
mod quorum;
mod random;
mod script;
