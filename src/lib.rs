#![deny(unsafe_op_in_unsafe_fn)]
#![warn(missing_debug_implementations)]

pub mod checksum;
pub mod cli;
pub mod client;
pub mod codec;
pub mod disk;
pub mod limits;
pub mod machine;
pub mod net;
pub mod node;
pub mod raft;
pub mod random;
pub mod sim;
pub mod superblock;
pub mod types;
pub mod wal;
