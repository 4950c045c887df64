//! `trilith kv`: the built-in map.

use std::io::Write;

use bytes::Bytes;
use serde::Serialize;

use super::access::{self, ClientArguments, WriteArguments};
use super::exit::{Exit, Failure};
use super::output::{self, Format};
use super::source::{ReadArguments, Source};
use crate::client::{Client, Scan};
use crate::net::Consistency;
use crate::types::Index;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Set a key's value, and print the index of the change
    Put {
        key: String,
        value: String,
        #[command(flatten)]
        client: WriteArguments,
    },
    /// Print a key's value; exit code 1 if it has none
    Get {
        key: String,
        #[command(flatten)]
        read: ReadArguments,
        #[command(flatten)]
        client: ClientArguments,
    },
    /// Remove a key, and print the index of the change; exit code 1 if it was not there
    Delete {
        key: String,
        #[command(flatten)]
        client: WriteArguments,
    },
    /// Set or remove a key's value if it is as expected, and print the index of the change; exit code 1 if it is not
    Cas {
        key: String,
        /// The value that must be there; without it, the key must not be there
        #[arg(long, value_name = "VALUE")]
        expected: Option<String>,
        /// The value to set; without it, the key is removed
        #[arg(long, value_name = "VALUE")]
        new: Option<String>,
        #[command(flatten)]
        client: WriteArguments,
    },
    /// Print keys with their values, in the order of the keys
    Scan {
        /// The first key
        #[arg(long, value_name = "KEY", default_value = "")]
        from: String,
        /// The key to stop before
        #[arg(long, value_name = "KEY")]
        to: Option<String>,
        /// How many at most
        #[arg(long, value_name = "NUMBER", default_value_t = u32::MAX)]
        limit: u32,
        /// How to print them
        #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
        output: Format,
        #[command(flatten)]
        read: ReadArguments,
        #[command(flatten)]
        client: ClientArguments,
    },
}

#[derive(Serialize)]
struct Shown {
    key: String,
    value: String,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.command {
        Command::Put { key, value, client } => {
            change(client, async |client| client.put(bytes(key), bytes(value)).await.map_err(access::failure))
        }
        Command::Get { key, read, client } => access::block_on(async {
            let found = read.open(client).await?.get(bytes(key), read.consistency).await?;
            print_value(&found.ok_or_else(|| absent(key))?)
        }),
        Command::Delete { key, client } => change(client, async |client| {
            let (index, existed) = client.delete(bytes(key)).await.map_err(access::failure)?;
            if existed { Ok(index) } else { Err(absent(key)) }
        }),
        Command::Cas { key, expected, new, client } => change(client, async |client| {
            let (expected, new) = (expected.as_deref().map(bytes), new.as_deref().map(bytes));
            let (index, is_equal) = client.compare_and_set(bytes(key), expected, new).await.map_err(access::failure)?;
            if is_equal { Ok(index) } else { Err(unequal(key)) }
        }),
        Command::Scan { from, to, limit, output, read, client } => access::block_on(async {
            let scan = Scan { from: bytes(from), to: to.as_deref().map(bytes), limit: *limit };
            print(scan, &mut read.open(client).await?, read.consistency, *output).await
        }),
    }
}

/// Prints a part of the map, however many answers it takes.
async fn print(mut scan: Scan, source: &mut Source, consistency: Consistency, format: Format) -> Result<(), Failure> {
    let mut entries = Vec::new();
    loop {
        let scanned = source.scan(scan.clone(), consistency).await?;
        scan.limit = scan.limit.saturating_sub(scanned.entries.len() as u32);
        let is_stuck = scanned.entries.is_empty();
        match format {
            Format::Table => print_lines(&scanned.entries)?,
            Format::Json => entries.extend(scanned.entries.iter().map(shown)),
        }
        match scanned.next.filter(|_| scan.limit > 0 && !is_stuck) {
            Some(next) => scan.from = next,
            None => break,
        }
    }
    match format {
        Format::Table => Ok(()),
        Format::Json => output::print(&serde_json::to_string_pretty(&entries).expect("entries are strings")),
    }
}

/// Changes the map, and prints the index of the change.
fn change(client: &WriteArguments, work: impl AsyncFnOnce(&Client) -> Result<Index, Failure>) -> Result<(), Failure> {
    let index = access::block_on(async { work(&client.connect().await?).await })?;
    write(|out| writeln!(out, "{index}"))
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// As text; what is no UTF-8 is replaced.
fn shown((key, value): &(Bytes, Bytes)) -> Shown {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    Shown { key: text(key), value: text(value) }
}

fn print_value(value: &[u8]) -> Result<(), Failure> {
    write(|out| {
        out.write_all(value)?;
        out.write_all(b"\n")
    })
}

fn print_lines(entries: &[(Bytes, Bytes)]) -> Result<(), Failure> {
    write(|out| {
        entries.iter().try_for_each(|(key, value)| {
            out.write_all(key)?;
            out.write_all(b"\t")?;
            out.write_all(value)?;
            out.write_all(b"\n")
        })
    })
}

fn write(put: impl FnOnce(&mut std::io::BufWriter<std::io::Stdout>) -> std::io::Result<()>) -> Result<(), Failure> {
    let mut out = std::io::BufWriter::new(std::io::stdout());
    match put(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::new(
            Exit::Other,
            format!("standard output: {error}"),
            "check where the output goes; nothing else was wrong",
        )),
        _ => Ok(()),
    }
}

fn absent(key: &str) -> Failure {
    Failure::new(Exit::Other, format!("{key:?} is not in the map"), "`trilith kv scan` lists the keys")
}

fn unequal(key: &str) -> Failure {
    Failure::new(
        Exit::Other,
        format!("the value of {key:?} is another; nothing was changed"),
        "read it with `trilith kv get`",
    )
}
