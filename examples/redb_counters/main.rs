//! A node with a state machine of its own, which keeps its state in redb: killed at any moment, it runs nothing twice.
//!
//!     cargo run --example redb_counters [DIRECTORY]
//!
//! The node is this program again, as a process of its own, so that it can be killed: `redb_counters node --config FILE`.

mod counters;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use trilith::cli::local::{LocalCluster, LocalOptions};
use trilith::cli::{Exit, Failure, run_node};
use trilith::client::{Client, ClientOptions};
use trilith::net::{Consistency, Identity};
use trilith::types::NodeId;

use counters::Counters;

const NODE: NodeId = NodeId(1);
const PATIENCE: Duration = Duration::from_secs(30);
const COMMANDS: u64 = 1000;

fn main() -> ExitCode {
    if std::env::args().nth(1).is_some_and(|argument| argument == "node") {
        return run_node(|configuration| {
            let file = configuration.data_directory.join("counters.redb");
            Counters::open(&file).map_err(|error| {
                let message = format!("{}: {error}", file.display());
                Failure::new(Exit::Other, message, "stop whoever has it open, or put back a copy of it")
            })
        });
    }
    let home = std::env::args_os().nth(1).map_or_else(|| PathBuf::from("redb_counters"), PathBuf::from);
    match run(&home) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(home: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let options = LocalOptions { nodes: 1, segment_bytes: 1 << 20, io: None };
    let mut cluster = LocalCluster::prepare(home, &std::env::current_exe()?, &options)?;
    cluster.start(NODE, PATIENCE)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(story(&mut cluster))?;
    Ok(cluster.stop_all(PATIENCE)?)
}

async fn story(cluster: &mut LocalCluster) -> Result<(), Box<dyn std::error::Error>> {
    let file = cluster.client()?;
    let identity = Identity::load(&file.certificate, &file.key, &file.ca, file.crl.as_deref())?;
    let nodes = file.nodes.iter().map(|node| (node.id, node.address)).collect();
    let client = Client::connect(ClientOptions { timeout: PATIENCE, ..ClientOptions::new(nodes, identity) }).await?;
    let ask = async |query: &str| {
        let answer = client.query(Bytes::copy_from_slice(query.as_bytes()), Consistency::Linearizable).await?;
        Ok::<_, trilith::client::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    println!("apples: {}", ask("apples").await?);

    // Many on their way when the node is killed. The client sends again what was not answered: who was run gets its answer.
    let send = |client: Client| tokio::spawn(async move { client.command("apples".into()).await });
    let mut sent: Vec<_> = (0..COMMANDS).map(|_| send(client.clone())).collect();
    sent.remove(0).await??;
    cluster.kill(NODE)?;
    cluster.start(NODE, PATIENCE)?;
    for command in sent {
        command.await??;
    }
    println!("{COMMANDS} commands, and the node killed in their midst; apples: {}", ask("apples").await?);

    cluster.kill(NODE)?;
    cluster.start(NODE, PATIENCE)?;
    let apples = ask("apples").await?;
    println!("killed and started again; apples: {apples}; commands run again: {}", ask("").await?);
    Ok(())
}
