//! `trilith dev`: a local cluster until Ctrl-C.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::local::{LocalCluster, LocalOptions};
use super::{Exit, Failure, output};
use crate::limits::SEGMENT_BYTES_DEFAULT;

/// A node that dies is started again after this.
const RESTART_DELAY: Duration = Duration::from_secs(1);
const POLL: Duration = Duration::from_millis(50);
/// How long a node may take to serve, its recovery included, or to end.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How many nodes, if the directory is new
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=7))]
    nodes: u64,
    /// Where certificates, configurations and data lie; kept for the next start
    #[arg(long, value_name = "DIR", default_value = "trilith-dev")]
    dir: PathBuf,
    /// Which way to the disk: auto, uring or blocking
    #[arg(long, value_name = "WAY")]
    io: Option<String>,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let stop = stop_flag()?;
    let options =
        LocalOptions { nodes: arguments.nodes, segment_bytes: SEGMENT_BYTES_DEFAULT, io: arguments.io.clone() };
    let mut cluster = LocalCluster::prepare(&arguments.dir, &program()?, &options)?;
    cluster.start_all(PATIENCE)?;
    for id in cluster.nodes().collect::<Vec<_>>() {
        if let Some(child) = cluster.child(id) {
            let line = format!("{} (process {})", child.greeting, child.id());
            output::print(&line)?;
        }
    }
    output::print(&format!("clients: trilith log append - --client {}", cluster.client_file().display()))?;
    output::print("Ctrl-C ends it; the data stays")?;
    watch(&mut cluster, &stop)?;
    cluster.stop_all(PATIENCE)
}

/// Starts again whoever dies, until it is time to stop.
fn watch(cluster: &mut LocalCluster, stop: &AtomicBool) -> Result<(), Failure> {
    while !stop.load(Ordering::Relaxed) {
        for id in cluster.nodes().collect::<Vec<_>>() {
            let Some(status) = cluster.child(id).and_then(|child| child.ended()) else { continue };
            output::print(&format!("node {id} ended ({status}); it is started again in {RESTART_DELAY:?}"))?;
            cluster.kill(id)?;
            std::thread::sleep(RESTART_DELAY);
            if !stop.load(Ordering::Relaxed) {
                cluster.start(id, PATIENCE)?;
                let line = cluster.child(id).map(|child| format!("{} (process {})", child.greeting, child.id()));
                output::print(&line.unwrap_or_default())?;
            }
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// This very program: nodes are its own sub-command.
pub fn program() -> Result<PathBuf, Failure> {
    std::env::current_exe().map_err(|error| {
        Failure::new(Exit::Other, format!("the path of this program: {error}"), "start it by its full path")
    })
}

/// Set when the process is asked to end.
fn stop_flag() -> Result<Arc<AtomicBool>, Failure> {
    let flag = Arc::new(AtomicBool::new(false));
    let set = flag.clone();
    let cannot = |error: std::io::Error| {
        Failure::new(Exit::Other, format!("signals cannot be received: {error}"), "run it where signals work")
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(cannot)?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            super::node::stop_signal().await;
            set.store(true, Ordering::Relaxed);
        });
    });
    Ok(flag)
}
