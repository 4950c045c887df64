//! `trilith bench cluster`: clients in a closed loop against a cluster, each record acknowledged by itself.
//!
//! This process is the clients; the nodes are other processes. In flight counts records: each is an entry of the log
//! with its own index, in requests of at most 64. A latency is that of one batch, from its enqueuing to the
//! acknowledgement of its last record. Without `--client` the bench makes a cluster of its own and removes it.
//!
//! With `--snapshot` the records are changes of a large map, and what is measured is what it costs them that all nodes
//! make a snapshot of it: see [`snapshot`].

mod load;
mod report;
mod snapshot;

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::cli::access::{self, ClientArguments};
use crate::cli::configuration::ClientConfiguration;
use crate::cli::dev::{PATIENCE, program};
use crate::cli::exit::{Exit, Failure};
use crate::cli::failures;
use crate::cli::local::{LocalCluster, LocalOptions};
use crate::cli::output::{self, Format};
use crate::client::REQUEST_RECORDS_DEFAULT;
use crate::disk::{Directory, FlushTimes, measure_flush};
use crate::limits::{RECORD_BYTES_MAX, SEGMENT_BYTES_DEFAULT, SESSION_ANSWERS_MAX};
use load::Load;
use report::Report;

#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    client: ClientArguments,
    /// Nodes of the bench's own cluster
    #[arg(long, value_name = "COUNT", default_value = "3", value_parser = clap::value_parser!(u64).range(1..=7))]
    nodes: u64,
    /// Where the bench's own cluster is made, and removed at the end
    #[arg(long, alias = "dir", value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    /// Payload of a record
    #[arg(long, value_name = "BYTES", default_value = "128",
        value_parser = clap::value_parser!(u32).range(1..=RECORD_BYTES_MAX as i64))]
    bytes: u32,
    /// Records in flight, over all clients
    #[arg(long, value_name = "RECORDS", default_value = "2048",
        value_parser = clap::value_parser!(u32).range(1..=65_536))]
    in_flight: u32,
    /// Client connections; as many as the records in flight need, if not given
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=256))]
    clients: Option<u32>,
    /// How long is measured
    #[arg(long, default_value = "10", value_parser = clap::value_parser!(u16).range(1..=3600))]
    seconds: u16,
    #[command(flatten)]
    snapshot: snapshot::SnapshotArguments,
    /// The way to the disk of the bench's own nodes: auto, uring, blocking
    #[arg(long, value_name = "WAY")]
    io: Option<String>,
    /// How to print the result
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    output: Format,
}

/// Measures, and prints what came of it.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.snapshot.snapshot {
        return snapshot::run(arguments);
    }
    let report = if arguments.client.names_cluster() {
        measure(arguments, &arguments.client.configuration()?, None)?
    } else {
        measure_own(arguments)?
    };
    output::print(&match arguments.output {
        Format::Table => report.table(),
        Format::Json => report.json(),
    })
}

fn measure_own(arguments: &Arguments) -> Result<Report, Failure> {
    let (place, mut cluster) = own_cluster(arguments)?;
    let flush = flush_times(&place.path)?;
    cluster.start_all(PATIENCE)?;
    let report = measure(arguments, &cluster.client()?, Some(flush))?;
    cluster.stop_all(PATIENCE)?;
    Ok(report)
}

/// Made, not started.
fn own_cluster(arguments: &Arguments) -> Result<(Place, LocalCluster), Failure> {
    let place = Place { path: arguments.directory.join(format!("trilith-bench-{}", std::process::id())) };
    let options =
        LocalOptions { nodes: arguments.nodes, segment_bytes: SEGMENT_BYTES_DEFAULT, io: arguments.io.clone() };
    let cluster = LocalCluster::prepare(&place.path, &program()?, &options)?;
    Ok((place, cluster))
}

fn measure(
    arguments: &Arguments,
    configuration: &ClientConfiguration,
    flush: Option<FlushTimes>,
) -> Result<Report, Failure> {
    let (in_flight, clients) = in_flight(arguments)?;
    let load = Load {
        bytes: arguments.bytes as usize,
        clients,
        in_flight,
        batch: REQUEST_RECORDS_DEFAULT.min(in_flight / clients),
        warm_up: Duration::from_secs(1).min(Duration::from_secs(u64::from(arguments.seconds)) / 4),
        time: Duration::from_secs(u64::from(arguments.seconds)),
    };
    let measured = access::block_on(load.run(configuration))?;
    Ok(Report::new(&arguments.directory, &load, flush, measured))
}

/// Records in flight, and the clients that they are spread over.
fn in_flight(arguments: &Arguments) -> Result<(usize, usize), Failure> {
    let in_flight = arguments.in_flight as usize;
    let clients = arguments.clients.map_or(in_flight.div_ceil(SESSION_ANSWERS_MAX), |clients| clients as usize);
    let most = clients * SESSION_ANSWERS_MAX;
    if in_flight > most || in_flight < clients {
        return Err(Failure::new(
            Exit::Usage,
            format!("{in_flight} records in flight do not fit {clients} clients"),
            format!("a client has 1 to {SESSION_ANSWERS_MAX} records in flight; change --clients or --in-flight"),
        ));
    }
    Ok((in_flight, clients))
}

fn flush_times(directory: &Path) -> Result<FlushTimes, Failure> {
    let opened = Directory::open(directory).and_then(|directory| measure_flush(&directory));
    opened.map_err(|error| failures::of_disk(&error, error.to_string()))
}

/// The cluster's directory, gone when it is dropped.
struct Place {
    path: PathBuf,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            eprintln!("warning: {} stays behind: {error}", self.path.display());
        }
    }
}
