//! Members change while writers run: a cluster grows from one node to five and shrinks back to one, and each member of
//! three is replaced, the leader first. No write fails, and every record that was acknowledged is there once.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use trilith::cli::configuration::{ClientConfiguration, ClientNode, ClientSettings};
use trilith::net::NodeStatus;
use trilith::types::NodeId;

use crate::processes::load::Load;
use crate::processes::{PATIENCE, PROGRAM, SEGMENT_BYTES, Trial, beside_one, check, status};

/// At least so many acknowledgements come between two changes.
const BETWEEN: u64 = 1000;
/// Between two chunks of a writer: a new member must be able to keep up, also on a busy machine.
const PAUSE: Duration = Duration::from_millis(50);
const REMOVED: i32 = 12;

#[test]
fn a_cluster_grows_to_five_and_shrinks_to_one_under_load() {
    let _share = beside_one();
    let begin = Instant::now();
    let mut rig = Rig::start(1);
    rig.go_on();
    for id in 2..=5 {
        rig.join(NodeId(id));
        rig.go_on();
    }
    assert_eq!(voters(&rig.view(NodeId(5))), [1, 2, 3, 4, 5]);
    // At a time when all five are there.
    rig.remove(&[1, 2]);
    rig.go_on();
    rig.remove(&[3, 4]);
    rig.go_on();
    assert_eq!(voters(&rig.view(NodeId(5))), [5]);
    rig.compare(&[5], 6 * BETWEEN);
    println!("members, 1 to 5 to 1: {:.1?}", begin.elapsed());
}

#[test]
fn each_member_of_three_is_replaced_under_load_the_leader_first() {
    let _share = beside_one();
    let begin = Instant::now();
    let mut rig = Rig::start(3);
    rig.go_on();
    let leader = rig.trial.leader();
    rig.join(NodeId(4));
    rig.remove(&[leader.0]);
    rig.go_on();
    let others: Vec<NodeId> = (1..=3).map(NodeId).filter(|id| *id != leader).collect();
    // Under its own id, as another life of it.
    rig.remove(&[others[0].0]);
    rig.go_on();
    fs::remove_dir_all(rig.trial.cluster.data_directory(others[0])).expect("it has ended");
    rig.join(others[0]);
    rig.go_on();
    rig.join(NodeId(5));
    rig.remove(&[others[1].0]);
    rig.go_on();
    let mut left = vec![4, 5, others[0].0];
    left.sort_unstable();
    assert_eq!(voters(&rig.view(NodeId(4))), left);
    rig.compare(&left, 5 * BETWEEN);
    println!("members, each of three replaced: {:.1?}", begin.elapsed());
}

struct Rig {
    // Dropped in this order: writers first.
    load: Option<Load>,
    trial: Trial,
}

impl Rig {
    fn start(nodes: u64) -> Rig {
        let trial = Trial::start(nodes, None);
        let load = Load::start(&trial.cluster.client_file(), trial.home.path());
        load.pace(PAUSE);
        Rig { load: Some(load), trial }
    }

    /// Until more is acknowledged; fails if a writer was told that a write failed, since it ends then.
    fn go_on(&mut self) {
        let load = self.load.as_mut().expect("the writers run");
        load.reach(load.acknowledged() + BETWEEN);
    }

    /// As an operator does it: a directory, a process, and the order to the cluster.
    fn join(&mut self, id: NodeId) {
        let prepared = self.trial.cluster.prepare_later(id, SEGMENT_BYTES);
        let member = prepared.unwrap_or_else(|failure| panic!("{failure}"));
        self.trial.start_node(id);
        let (id, incarnation, address) = (id.to_string(), member.incarnation.to_string(), member.address.to_string());
        let add = ["add", &id, "--incarnation", &incarnation, "--address", &address, "--wait", "60"];
        let told = self.order(&add);
        assert!(told.contains("is a learner") && told.ends_with(&format!("node {id} votes\n")), "{told}");
        let again = self.order(&add);
        assert!(again.contains("is a member already"), "{again}");
    }

    /// The nodes that go say so, and end.
    fn remove(&mut self, ids: &[u64]) {
        let ids: Vec<String> = ids.iter().map(u64::to_string).collect();
        let remove: Vec<&str> = ["remove"].into_iter().chain(ids.iter().map(String::as_str)).collect();
        let told = self.order(&remove);
        assert!(told.contains("is removed, by entry"), "{told}");
        for id in &ids {
            let id = NodeId(id.parse().expect("it is a number"));
            let deadline = Instant::now() + PATIENCE;
            let child = self.trial.cluster.child(id).expect("it was started");
            let ended = loop {
                if let Some(status) = child.ended() {
                    break status.code();
                }
                assert!(Instant::now() < deadline, "node {id} does not notice that it was removed");
                std::thread::sleep(Duration::from_millis(10));
            };
            let log = self.trial.log(id);
            assert_eq!(ended, Some(REMOVED), "{log}");
            assert!(log.contains("was removed from the cluster by entry") && log.contains("init --config FILE --join"));
            let started = self.trial.cluster.kill(id).and_then(|()| self.trial.cluster.start(id, PATIENCE));
            assert!(started.is_err_and(|failure| failure.exit as i32 == REMOVED), "it does not start again");
        }
        let again = self.order(&remove);
        assert!(again.contains("nothing was to be done"), "{again}");
    }

    /// Runs `trilith cluster`, as an administrator.
    fn order(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(PROGRAM);
        command.arg("cluster").args(arguments).args(["--timeout", "30", "--client"]);
        let done = command.arg(self.trial.cluster.admin_file()).output().expect("the binary runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(done.status.success(), "{arguments:?}: {}{}", text(&done.stdout), text(&done.stderr));
        // The next order may come after the nodes have gone that were first.
        self.rewrite_admin();
        text(&done.stdout)
    }

    /// Names all nodes that run, in the file that later orders use.
    fn rewrite_admin(&self) {
        let file = self.trial.cluster.admin_file();
        let known = ClientConfiguration::load(&file).expect("it is a configuration");
        let all = self.configuration(&known, &(1..=5).collect::<Vec<_>>());
        fs::write(&file, all.render()).expect("it can be written");
    }

    fn configuration(&self, known: &ClientConfiguration, ids: &[u64]) -> ClientConfiguration {
        let nodes = ids.iter().filter_map(|id| {
            let text = fs::read_to_string(self.trial.cluster.configuration_file(NodeId(*id))).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix("advertise = "))?;
            Some(ClientNode { id: NodeId(*id), address: line.trim_matches('"').parse().ok()? })
        });
        let settings = ClientSettings {
            cluster: known.cluster,
            nodes: nodes.collect(),
            certificate: known.certificate.clone(),
            key: known.key.clone(),
            ca: known.ca.clone(),
            crl: None,
            forward: false,
        };
        ClientConfiguration::checked(settings).unwrap_or_else(|error| panic!("{error}"))
    }

    fn client(&self, ids: &[u64]) -> ClientConfiguration {
        let known = self.trial.cluster.client().unwrap_or_else(|failure| panic!("{failure}"));
        self.configuration(&known, ids)
    }

    fn view(&self, id: NodeId) -> NodeStatus {
        status(&self.client(&[id.0]), id).expect("it answers")
    }

    fn compare(&mut self, ids: &[u64], acknowledged: u64) {
        let journals = self.load.take().expect("the writers run").kill();
        let checked = check::compare(&self.client(ids), &journals);
        assert!(checked.acknowledged >= acknowledged, "{checked:?}");
        println!("  {checked:?}");
    }
}

fn voters(status: &NodeStatus) -> Vec<u64> {
    assert!(!status.membership.is_joint(), "{:?}", status.membership);
    status.membership.voters.iter().map(|voter| voter.0).collect()
}
