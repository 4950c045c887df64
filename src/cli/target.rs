//! What a command looks at that only reads a directory.

use std::path::PathBuf;

use super::output::Format;

#[derive(Debug, clap::Args)]
pub struct Target {
    /// The directory of a node, or another that holds the same
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// How to print the answer
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
}
