//! The integration tests: one crate, one file per theme.

mod command_line;
mod examples;
mod tidy;
