//! The integration tests: one crate, one file per theme.

mod tidy;
