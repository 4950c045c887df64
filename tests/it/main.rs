//! The integration tests: one crate, one file per theme.

mod command_line;
mod examples;
mod kills;
mod power_cut;
mod processes;
<<<<<<< HEAD
mod simulation;
=======
mod refusals;
>>>>>>> processes
mod tidy;
