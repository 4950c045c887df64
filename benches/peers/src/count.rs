//! Opens a log that another process wrote, and prints what is in it as one line of JSON.

use std::path::PathBuf;

use trilith::cli::Failure;

use crate::engines::{Kind, Settings};

#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    #[arg(long)]
    engine: Kind,
    #[arg(long)]
    directory: PathBuf,
    #[arg(long)]
    threads: usize,
    #[command(flatten)]
    settings: Settings,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let counted = arguments.engine.count(&arguments.directory, arguments.threads, &arguments.settings)?;
    println!("{}", serde_json::to_string(&counted).expect("numbers are JSON"));
    Ok(())
}
