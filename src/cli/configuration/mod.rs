//! The configuration files: TOML in, types that cannot be wrong out.
//!
//! ```text
//!   flag  over  TRILITH_*  over  file  over  default
//!    └────────────┴───────────────┘
//!        values, each with its origin ──▶ settings ──▶ checked: NodeConfiguration, ClientConfiguration
//! ```
//!
//! # The contract
//!
//! - A file is read once. An unknown key is refused with the nearest known one; no value is repaired or ignored.
//! - Every error names where the value came from (file and line, variable, flag), the key, the value, what is allowed,
//!   and the next step.
//! - A path in a file is relative to that file; one in a flag or a variable is relative to the working directory.
//! - What is rendered here reads back as the same configuration.

mod client;
mod document;
mod error;
mod node;

pub use client::{ClientConfiguration, ClientNode, ClientSettings};
pub use document::{Origin, Override, environment};
pub use error::{Error, Invalid};
pub use node::{ConfiguredMember, IoChoice, NodeConfiguration, NodeSettings, TlsFiles};

#[cfg(test)]
mod tests;
