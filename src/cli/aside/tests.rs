//! What is moved aside, and what is not; and a move that was cut off.

use super::*;
use crate::cli::configuration::NodeSettings;
use crate::cli::local::{LocalCluster, LocalOptions};
use crate::types::NodeId;

struct Rig {
    home: tempfile::TempDir,
    configuration: NodeConfiguration,
}

impl Rig {
    /// A node's directory as `init` makes it.
    fn new() -> Rig {
        let home = tempfile::tempdir().unwrap();
        let options = LocalOptions { nodes: 1, segment_bytes: 64 << 10, io: Some("blocking".to_owned()) };
        let prepared = LocalCluster::prepare(&home.path().join("cluster"), Path::new("trilith"), &options);
        let file = prepared.unwrap_or_else(|failure| panic!("{failure}")).configuration_file(NodeId(1));
        Rig { configuration: NodeConfiguration::load(&file, &[]).unwrap(), home }
    }

    fn directory(&self) -> &Path {
        &self.configuration.data_directory
    }

    fn names(&self, below: &str) -> Vec<String> {
        Directory::open(self.directory().join(below)).and_then(|files| files.list("")).unwrap()
    }

    fn keep(&self) -> Option<PathBuf> {
        keep(&self.configuration).unwrap_or_else(|failure| panic!("{failure}"))
    }
}

#[test]
fn a_node_that_is_well_and_a_log_by_itself_stay_where_they_are() {
    let rig = Rig::new();
    let before = rig.names("");
    assert_eq!((rig.keep(), rig.names("")), (None, before));
    fs::remove_file(rig.directory().join("superblock")).unwrap();
    fs::write(rig.directory().join(LOCK_NAME), "").unwrap();
    fs::write(rig.directory().join("log/0000000000000009.segment"), "something").unwrap();
    assert_eq!(rig.keep(), None);
    assert!(rig.names("").contains(&"log".to_owned()));
    drop(rig.home);
}

#[test]
fn the_lives_of_a_node_are_kept_one_by_one() {
    let rig = Rig::new();
    let whole = rig.names("");
    for (life, mark) in [(1, NO_VOICE_NAME), (2, REMOVED_NAME)] {
        fs::write(rig.directory().join(mark), "why\n").unwrap();
        assert_eq!(rig.keep(), Some(rig.directory().join(format!("before-{life}"))));
        let kept = rig.names(&format!("before-{life}"));
        assert!(whole.iter().all(|name| kept.contains(name)), "{kept:?}");
        assert!(kept.iter().any(|name| name == NO_VOICE_NAME) && kept.iter().any(|name| name == mark), "{kept:?}");
        assert!(rig.names("").iter().all(|name| name.starts_with(KEPT)));
        assert_eq!(rig.keep(), None, "nothing is left to be moved");
        for name in &whole {
            let mut copy = std::process::Command::new("cp");
            copy.arg("-r").arg(rig.directory().join("before-1").join(name)).arg(rig.directory());
            assert!(copy.status().unwrap().success());
        }
    }
}

#[test]
fn a_move_that_was_cut_off_goes_on_where_it_was() {
    let rig = Rig::new();
    let whole = rig.names("");
    fs::write(rig.directory().join(NO_VOICE_NAME), "why\n").unwrap();
    fs::create_dir(rig.directory().join("before-1")).unwrap();
    fs::rename(rig.directory().join("superblock"), rig.directory().join("before-1/superblock")).unwrap();
    assert_eq!(rig.keep(), Some(rig.directory().join("before-1")));
    let kept = rig.names("before-1");
    assert!(whole.iter().all(|name| kept.contains(name)), "{kept:?}");
}

#[test]
fn the_directory_of_another_node_is_not_moved() {
    let rig = Rig::new();
    fs::write(rig.directory().join(NO_VOICE_NAME), "why\n").unwrap();
    let settings = NodeSettings { node_id: NodeId(2), members: Vec::new(), ..NodeSettings::clone(&rig.configuration) };
    let refused = keep(&NodeConfiguration::checked(settings).unwrap()).expect_err("it belongs to node 1");
    assert!(refused.exit == Exit::WrongIdentity && refused.message.contains("belongs to node 1"), "{refused}");
}

/// What a node did not make is not its life's: the certificate of the next one may lie there.
#[test]
fn what_lies_beside_a_life_stays() {
    let rig = Rig::new();
    fs::write(rig.directory().join(REMOVED_NAME), "why\n").unwrap();
    for other in ["node.key", "lost+found"] {
        fs::write(rig.directory().join(other), "somebody's").unwrap();
    }
    fs::write(rig.home.path().join("elsewhere"), "").unwrap();
    std::os::unix::fs::symlink(rig.home.path().join("elsewhere"), rig.directory().join("log/link")).unwrap();
    assert_eq!(rig.keep(), Some(rig.directory().join("before-1")));
    assert_eq!(rig.names(""), ["before-1", "lost+found", "node.key"]);
    let mark = fs::read_to_string(rig.directory().join("before-1").join(NO_VOICE_NAME)).unwrap();
    assert!(mark.contains("was removed"), "{mark}");
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_ne!(mode(rig.home.path().join("elsewhere")), READ_ONLY);
    assert_ne!(mode(rig.directory().join("node.key")), READ_ONLY);
}
