//! The integration tests: one crate, one file per theme.

mod birth;
mod command_line;
mod ends;
mod examples;
mod forgetful;
mod forwarding;
mod full_disk;
mod handing_over;
mod kills;
mod log_cuts;
mod member_waits;
mod members;
mod netns;
mod overload;
mod partitions;
mod power_cut;
mod processes;
mod reading;
mod refusals;
mod restore;
mod simulation;
mod snapshots;
mod tidy;
mod trim;
mod voice;
mod wal_command;
