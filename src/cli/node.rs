//! `trilith node`: one member of a cluster, until it is told to stop.

use std::path::PathBuf;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use super::configuration::{self, NodeConfiguration, Override};
use super::{Exit, Failure, failures, output};
use crate::disk;
use crate::machine::{Map, StateMachine};
use crate::net::Identity;
use crate::node::run::{self, NodeOptions, RunError, Serving};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The node's configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Which way to the disk: auto, uring or blocking (over the file and TRILITH_IO)
    #[arg(long, value_name = "WAY")]
    io: Option<String>,
    /// End when standard input ends: for nodes that must not outlive who started them
    #[arg(long, hide = true)]
    stop_with_parent: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    run_with(arguments, |_| Ok(Map::new()))
}

/// The same with the state machine that `machine` opens for this configuration.
pub fn run_with<M: StateMachine + Send + 'static>(
    arguments: &Arguments,
    machine: impl FnOnce(&NodeConfiguration) -> Result<M, Failure>,
) -> Result<(), Failure> {
    let configuration = load(&arguments.config, arguments.io.as_deref())?;
    start_log();
    raise_descriptor_limit();
    let machine = machine(&configuration)?;
    let options = options(&configuration)?;
    let directory = options.directory.clone();
    let id = options.id;
    let ready = move |serving: &Serving| announce(id, serving);
    let failed = |error: &RunError| {
        // Threads may hang in a disk that does not answer: nothing is joined and nothing is waited for.
        let failure = failures::of_node(error, &directory);
        output::complain(&failure);
        std::process::exit(i32::from(failure.exit as u8));
    };
    let over = stop_asked(arguments.stop_with_parent);
    run::run(options, machine, over, ready, failed).map_err(|error| failures::of_node(&error, &directory))
}

/// A node's configuration: flags over environment over file over default.
pub fn load(path: &std::path::Path, io: Option<&str>) -> Result<NodeConfiguration, Failure> {
    let mut overrides = configuration::environment(std::env::vars())?;
    overrides.extend(io.map(|io| Override::flag("io", io)));
    Ok(NodeConfiguration::load(path, &overrides)?)
}

fn options(configuration: &NodeConfiguration) -> Result<NodeOptions, Failure> {
    let tls = &configuration.tls;
    let identity = Identity::load(&tls.certificate, &tls.key, &tls.ca, tls.crl.as_deref())
        .map_err(|error| failures::of_certificate(&error))?;
    let id = configuration.node_id;
    match identity.node() {
        Ok(found) if found == id => {}
        Ok(found) => {
            return Err(Failure::new(
                Exit::Certificate,
                format!("{} is for node {found}, and this is node {id}", tls.certificate.display()),
                format!("give node {id} its own certificate: `trilith cert node --id {id}` makes one"),
            ));
        }
        Err(error) => return Err(failures::of_certificate(&error)),
    }
    Ok(NodeOptions {
        id,
        directory: configuration.data_directory.clone(),
        listen: configuration.listen,
        advertise: configuration.advertise,
        identity,
        io: io_choice(configuration.io),
        segment_bytes: configuration.segment_bytes,
        verify_at_start: configuration.verify_at_start,
        uncommitted_bytes_max: configuration.uncommitted_bytes_max,
        lease_drift_percent: configuration.lease_drift_percent,
        retention: configuration.retention,
        follower_tail: configuration.follower_tail,
        snapshot_entries: configuration.snapshot_entries,
        snapshot_bytes: configuration.snapshot_bytes,
        snapshot_bytes_per_second: configuration.snapshot_bytes_per_second,
        snapshot_fetch_bytes_per_second: configuration.snapshot_fetch_bytes_per_second,
        heartbeat: configuration.heartbeat,
        election: configuration.election_min..configuration.election_max,
        fingerprint: configuration.fingerprint(),
    })
}

fn io_choice(choice: configuration::IoChoice) -> disk::IoChoice {
    match choice {
        configuration::IoChoice::Auto => disk::IoChoice::Auto,
        configuration::IoChoice::Uring => disk::IoChoice::Uring,
        configuration::IoChoice::Blocking => disk::IoChoice::Blocking,
    }
}

/// The log's files take several hundred descriptors at most, connections come on top, and the soft limit of many systems is
/// 1,024. What the system allows this user is taken whole; a refusal is said, and the node goes on with what it has.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(current = ?limit.current, "the limit of open files could not be raised: {error}");
    }
}

/// Events go to standard error, as much as TRILITH_LOG asks for.
fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("TRILITH_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,quinn=warn,quinn_proto=warn,rustls=warn"));
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    // An event that cannot be written is lost; told on standard error, it would end the process.
    let subscriber = subscriber.log_internal_errors(false);
    if subscriber.try_init().is_err() {
        output::complain(&"events are logged elsewhere already");
    }
}

fn announce(id: crate::types::NodeId, serving: &Serving) {
    tracing::info!(io = %serving.io, sync = %serving.sync_mode, boot = serving.boot, "disk");
    for finding in &serving.findings {
        tracing::warn!("recovery: {finding}");
    }
    let line = format!("node {id} serves on {} (io {}, {})", serving.address, serving.io, serving.sync_mode);
    if let Err(failure) = output::print(&line) {
        tracing::warn!("{failure}");
    }
}

/// Returns when the process is asked to end, by a signal or by the end of standard input.
async fn stop_asked(with_parent: bool) {
    if !with_parent {
        return stop_signal().await;
    }
    let (sender, ended) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        // Whatever ends it, an error too, means that nobody holds the other end any more.
        let ended = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        tracing::info!(?ended, "standard input has ended");
        if sender.send(()).is_err() {
            tracing::debug!("the node ends already");
        }
    });
    tokio::select! {
        () = stop_signal() => {}
        _ = ended => {}
    }
}

/// Returns when the process is asked to end.
pub(super) async fn stop_signal() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        tracing::warn!("signals cannot be received; only SIGKILL ends this process");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
