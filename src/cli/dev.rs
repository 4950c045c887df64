//! `trilith dev`: a local cluster until Ctrl-C.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::local::{LocalCluster, LocalOptions};
use super::{Exit, Failure, output};
use crate::limits::SEGMENT_BYTES_DEFAULT;
use crate::types::NodeId;

/// A node that dies is started again after this; each time it does not serve, after twice the wait before.
const RESTART_DELAY_MIN: Duration = Duration::from_secs(1);
const RESTART_DELAY_MAX: Duration = Duration::from_secs(30);
/// A node that has served for so long begins with the shortest wait again.
const SERVED_WELL: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);
/// How long a node may take to serve, its recovery included, or to end.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// How many nodes, if the directory is new
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=7))]
    nodes: u64,
    /// Where certificates, configurations and data lie; kept for the next start
    #[arg(long, alias = "directory", value_name = "DIR", default_value = "trilith-dev")]
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
    let served = serve(&mut cluster, &stop);
    // Whatever went wrong, the nodes that run get their proper end.
    served.and(cluster.stop_all(PATIENCE))
}

fn serve(cluster: &mut LocalCluster, stop: &AtomicBool) -> Result<(), Failure> {
    cluster.start_all(PATIENCE)?;
    for id in cluster.nodes().collect::<Vec<_>>() {
        greet(cluster, id)?;
    }
    output::print(&format!("clients: trilith log append - --client {}", cluster.client_file().display()))?;
    output::print("Ctrl-C ends it; the data stays")?;
    let mut restarts: Vec<Restart> = cluster.nodes().map(Restart::of).collect();
    while !stop.load(Ordering::Relaxed) {
        for restart in &mut restarts {
            restart.look(cluster)?;
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

fn greet(cluster: &mut LocalCluster, id: NodeId) -> Result<(), Failure> {
    let line = cluster.child(id).map(|child| format!("{} (process {})", child.greeting, child.id()));
    output::print(&line.unwrap_or_default())
}

/// Starts a node again whenever it has died, for as long as it takes.
#[derive(Debug)]
struct Restart {
    node: NodeId,
    delay: Duration,
    /// When it is started again, if it does not run.
    due: Option<Instant>,
    serves_since: Instant,
}

impl Restart {
    fn of(node: NodeId) -> Restart {
        Restart { node, delay: RESTART_DELAY_MIN, due: None, serves_since: Instant::now() }
    }

    fn look(&mut self, cluster: &mut LocalCluster) -> Result<(), Failure> {
        match self.due {
            Some(due) if Instant::now() >= due => self.start(cluster),
            Some(_) => Ok(()),
            None => match cluster.child(self.node).and_then(|child| child.ended()) {
                Some(status) => {
                    cluster.kill(self.node)?;
                    if self.serves_since.elapsed() >= SERVED_WELL {
                        self.delay = RESTART_DELAY_MIN;
                    }
                    self.wait(&format!("ended ({status})"))
                }
                None => Ok(()),
            },
        }
    }

    fn start(&mut self, cluster: &mut LocalCluster) -> Result<(), Failure> {
        match cluster.start(self.node, PATIENCE) {
            Ok(()) => {
                (self.due, self.serves_since) = (None, Instant::now());
                greet(cluster, self.node)
            }
            Err(failure) => self.wait(&format!("does not serve: {} ({})", failure.message, failure.next_step)),
        }
    }

    fn wait(&mut self, what: &str) -> Result<(), Failure> {
        let delay = self.delay;
        self.due = Some(Instant::now() + delay);
        self.delay = (delay * 2).min(RESTART_DELAY_MAX);
        output::print(&format!("node {} {what}; it is started again in {delay:?}", self.node))
    }
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
