//! A new cluster that begins with what a snapshot holds, and a member that joins it: over real processes.

use std::fs;
use std::path::Path;
use std::process::Output;

use trilith::types::NodeId;

use crate::member_waits::{order, told};
use crate::processes::{SEGMENT_BYTES, Trial, beside_few, trilith};

const FIRST: NodeId = NodeId(1);
const SECOND: NodeId = NodeId(2);

fn put(client: &Path, key: &str, value: &str) -> u64 {
    let put = trilith(client, &["kv", "put", key, value]);
    told(&put, 0, &[]);
    String::from_utf8_lossy(&put.stdout).trim().parse().expect("an index")
}

fn restore(trial: &Trial, from: &Path) -> Output {
    let configuration = trial.cluster.configuration_file(FIRST);
    let mut command = std::process::Command::new(crate::processes::PROGRAM);
    command.args(["snapshot", "restore"]).arg(from).arg("--config").arg(configuration);
    command.output().expect("the binary runs")
}

#[test]
fn a_new_cluster_begins_with_a_snapshot_and_who_joins_it_fetches_that() {
    let _share = beside_few();
    let mut old = Trial::start(1, None);
    let client = old.cluster.client_file();
    (0..20).for_each(|number| _ = put(&client, &format!("key-{number}"), "from before"));
    told(&order(&old, &["snapshot"]), 0, &[]);
    put(&client, "key-0", "after the snapshot");
    let kept = old.cluster.data_directory(FIRST);
    old.kill(FIRST);

    let mut new = Trial::prepare(1, None);
    let directory = new.cluster.data_directory(FIRST);
    told(&restore(&new, &kept), 2, &["belongs to a node already", "choose another data_directory"]);
    fs::remove_dir_all(&directory).expect("it is ours");
    told(&restore(&new, new.home.path()), 10, &["holds no whole snapshot", "snapshot verify"]);
    assert!(!directory.exists(), "nothing was made");
    // As by another restore that is under way.
    fs::create_dir(&directory).expect("it is ours");
    let lock = fs::File::open(&directory).expect("it can be read");
    lock.lock().expect("nobody has it");
    told(&restore(&new, &kept), 19, &["another command writes into it"]);
    drop(lock);
    told(&restore(&new, &kept), 0, &["it begins with the state of cluster", "records before it stay behind"]);
    new.start_all();
    let client = new.cluster.client_file();
    told(&trilith(&client, &["kv", "get", "key-0"]), 0, &["from before"]);
    let index = put(&client, "key-20", "new");

    // Its log does not begin with the first entry: who joins needs the snapshot.
    let member = new.cluster.prepare_later(SECOND, SEGMENT_BYTES).unwrap_or_else(|failure| panic!("{failure}"));
    let [incarnation, address] = [member.incarnation.to_string(), member.address.to_string()];
    new.start_node(SECOND);
    let add = ["add", "2", "--incarnation", &incarnation, "--address", &address, "--wait", "60"];
    told(&order(&new, &add), 0, &["node 2 votes"]);
    let mut known = fs::read_to_string(&client).expect("it is there");
    known.push_str(&format!("\n[[node]]\nid = 2\naddress = \"{address}\"\n"));
    fs::write(&client, known).expect("it is ours");
    let at_least: &str = &format!("at-least={index}");
    let second_has = |key: &str, value: &str| {
        told(&trilith(&client, &["kv", "get", key, "--node", "2", "--read", at_least]), 0, &[value]);
    };
    second_has("key-7", "from before");
    second_has("key-20", "new");
    new.kill(SECOND);
    new.start_node(SECOND);
    second_has("key-7", "from before");
    second_has("key-20", "new");
}
