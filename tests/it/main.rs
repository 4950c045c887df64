//! The integration tests: one crate, one file per theme.

mod command_line;
mod ends;
mod examples;
mod kills;
mod power_cut;
mod processes;
mod refusals;
mod simulation;
mod tidy;
