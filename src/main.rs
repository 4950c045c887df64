//! The binary: everything is in [`trilith::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    trilith::cli::run()
}
