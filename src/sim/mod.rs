//! The world around the deterministic code, made of memory and one seed.
//!
//! What runs here is the code itself, not a copy of it: it meets simulated things behind the traits that it meets the
//! real ones behind. Everything is single-threaded, knows no clock, and takes its choices from a
//! [`crate::random::Random`] or from the test, so that the same seed gives the same run.
//!
//! [`disk`] is of use by itself: it lets anyone test their storage against cuts of power, torn writes and rot. [`fuzz`]
//! is what the targets in fuzz/ call. [`replicas`] is the protocol by itself, without log and machine.

mod background;
mod clients;
mod cluster;
mod copies;
pub mod disk;
mod faults;
mod follower;
mod forwards;
pub mod fuzz;
mod links;
pub(crate) mod log;
mod members;
mod network;
mod node;
mod oracles;
#[cfg(test)]
pub(crate) mod proofs;
mod recovery;
pub mod replica_disk;
pub mod replicas;
mod report;
mod rest;
mod scenario;
mod sessions;
#[cfg(test)]
pub(crate) mod skips;
mod starts;
mod steps;
#[cfg(test)]
mod tests;
mod trace;
mod transfer;
mod trims;

pub use cluster::Simulation;
pub use oracles::{Oracle, Violation};
pub use report::Report;
pub use scenario::{
    ChangeOptions, ClientOptions, DiskOptions, Faults, ImpatienceOptions, NetworkOptions, Options, PurgeOptions, Stall,
};
pub use steps::{Doing, Steps};
pub use trace::Trace;
