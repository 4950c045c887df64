#![deny(unsafe_op_in_unsafe_fn)]
#![warn(missing_debug_implementations)]

pub mod checksum;
pub mod cli;
pub mod codec;
pub mod disk;
pub mod limits;
pub mod raft;
pub mod random;
pub mod types;
