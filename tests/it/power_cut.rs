//! Power cut by the kernel: data directories on ext4 in files of their own, shut down under load without a flush of
//! their journal, taken off, mounted again, recovered.
//!
//! It shows metadata and buffered data that were never made durable; what O_DIRECT has handed to the device stays, so
//! a missing flush of it is not seen here (the simulated disk shows that).

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::ioctl::{Setter, ioctl};
use tempfile::TempDir;
use trilith::types::NodeId;

use crate::processes::load::Load;
use crate::processes::{PATIENCE, Trial, beside_one, check, skip, spread};

/// At least so many acknowledgements come between two cuts.
const BETWEEN: u64 = 3000;
const IMAGE_BYTES: u64 = 2 << 30;
/// EXT4_IOC_SHUTDOWN, `_IOR('X', 125, u32)`, and its EXT4_GOING_FLAGS_NOLOGFLUSH.
const SHUTDOWN: u32 = 0x8004_587d;
const NO_LOG_FLUSH: u32 = 2;
/// How long a node may take to see that its disk is gone, and to end.
const NOTICE: Duration = Duration::from_secs(5);
/// The exit code for a disk that failed.
const DISK_FAILED: i32 = 18;

#[test]
fn one_node_loses_nothing_when_its_power_is_cut() {
    cut_the_power("1 node", 1, None, 5);
}

#[test]
fn three_nodes_lose_nothing_when_the_power_of_one_of_most_and_of_all_is_cut() {
    cut_the_power("3 nodes", 3, None, 5);
}

#[test]
fn nodes_with_blocking_io_lose_nothing_when_their_power_is_cut() {
    cut_the_power("3 nodes, blocking", 3, Some("blocking"), 3);
}

#[test]
#[ignore = "long: cargo test --test it power_cut -- --ignored --nocapture"]
fn each_variant_with_20_cuts() {
    for (name, nodes) in [("1 node", 1), ("3 nodes", 3)] {
        cut_the_power(name, nodes, None, 20);
        cut_the_power(&format!("{name}, blocking"), nodes, Some("blocking"), 20);
    }
}

fn cut_the_power(name: &str, nodes: u64, io: Option<&str>, cuts: usize) {
    let _share = beside_one();
    if let Some((reason, needs)) = obstacle() {
        return skip("power_cut", &reason, &needs);
    }
    let begin = Instant::now();
    let mut trial = OnDisks::start(nodes, io);
    let mut load = Load::start(&trial.inner.cluster.client_file(), trial.journals.path());
    let (mut acknowledged, mut pending, mut gaps, mut ends) = (0, Vec::new(), Vec::new(), Vec::new());
    for cut in 0..cuts {
        load.reach(acknowledged + BETWEEN);
        let victims = victims(nodes, cut, trial.inner.leader());
        let given = load.given();
        trial.cut(&victims);
        load.slow(true);
        // A node that has nothing to write does not see it, and is waited for in vain.
        ends.extend(victims.iter().filter_map(|victim| trial.end(*victim)));
        let at = Instant::now();
        trial.restore(&victims);
        load.slow(false);
        let told = load.acknowledged();
        pending.push(given.saturating_sub(told));
        load.reach(told + 1);
        gaps.push(at.elapsed());
        acknowledged = told;
    }
    assert_eq!(pending.len(), cuts, "so many cuts were made");
    load.reach(acknowledged + BETWEEN);
    let all: Vec<NodeId> = trial.inner.cluster.nodes().collect();
    trial.cut(&all);
    let journals = load.kill();
    trial.restore(&all);
    let client = trial.inner.cluster.client().unwrap_or_else(|failure| panic!("{failure}"));
    let checked = check::compare(&client, &journals);
    assert!(checked.acknowledged >= BETWEEN * (cuts as u64 + 1), "{checked:?}");
    println!("power cuts, {name}: {cuts} cuts and one of all, {:.1?}", begin.elapsed());
    println!("  {checked:?}");
    println!("  unacknowledged at each cut, once its nodes had ended: {pending:?}");
    println!("  nodes that saw it and ended by themselves: {}, all with {DISK_FAILED}", ends.len());
    println!("  from the return of power to the next acknowledgement: {}", spread(&gaps));
    assert!(!ends.is_empty(), "a node under load sees that its disk is gone");
    assert!(ends.iter().all(|code| *code == DISK_FAILED), "{ends:?}");
    trial.inner.cluster.stop_all(PATIENCE).unwrap_or_else(|failure| panic!("{failure}"));
}

/// In turn: the leader, a majority with the leader in it, all.
fn victims(nodes: u64, cut: usize, leader: NodeId) -> Vec<NodeId> {
    let count = [1, nodes / 2 + 1, nodes][cut % 3];
    (0..count).map(|step| NodeId((leader.0 - 1 + step) % nodes + 1)).collect()
}

/// What stands in the way on this machine, and what it would take.
pub fn obstacle() -> Option<(String, String)> {
    let needs = "root /dev/loop-control mkfs.ext4".to_owned();
    if !rustix::process::geteuid().is_root() {
        return Some(("not root".to_owned(), needs));
    }
    if !Path::new("/dev/loop-control").exists() {
        return Some(("no loop devices".to_owned(), needs));
    }
    if Command::new("mkfs.ext4").arg("-V").output().is_err() {
        return Some(("no mkfs.ext4".to_owned(), needs));
    }
    let home = tempfile::tempdir().expect("a directory can be made");
    let (from, image, at) = (home.path().join("from"), home.path().join("image"), home.path().join("at"));
    std::fs::create_dir(&from).and_then(|()| std::fs::create_dir(&at)).expect("directories can be made");
    // A right that a container withholds is seen only in the trial.
    match Disk::make(&from, &image, at).and_then(|disk| disk.shut_down()) {
        Ok(()) => None,
        Err(reason) => Some((reason, String::new())),
    }
}

/// A cluster whose data directories are file systems of their own. What it was told is kept elsewhere.
struct OnDisks {
    inner: Trial,
    disks: Vec<Disk>,
    journals: TempDir,
}

impl OnDisks {
    fn start(nodes: u64, io: Option<&str>) -> OnDisks {
        let inner = Trial::prepare(nodes, io);
        let disk = |node: NodeId| {
            let directory = inner.cluster.data_directory(node);
            Disk::make(&directory, &inner.home.path().join(format!("disk-{node}")), directory.clone())
        };
        let disks: Result<Vec<Disk>, String> = inner.cluster.nodes().map(disk).collect();
        let disks = disks.unwrap_or_else(|error| panic!("{error}"));
        let mut trial = OnDisks { inner, disks, journals: tempfile::tempdir().expect("a directory can be made") };
        trial.inner.start_all();
        trial
    }

    fn disk(&mut self, node: NodeId) -> &mut Disk {
        &mut self.disks[node.0 as usize - 1]
    }

    /// At this moment nothing more reaches the file systems.
    fn cut(&mut self, nodes: &[NodeId]) {
        for node in nodes {
            self.disk(*node).shut_down().unwrap_or_else(|error| panic!("{error}"));
        }
    }

    /// The exit code of a node that ends by itself in time.
    fn end(&mut self, node: NodeId) -> Option<i32> {
        let child = self.inner.cluster.child(node).expect("it was started");
        let deadline = Instant::now() + NOTICE;
        while Instant::now() < deadline {
            if let Some(status) = child.ended() {
                return Some(status.code().unwrap_or(-1));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        None
    }

    /// Power comes back.
    fn restore(&mut self, nodes: &[NodeId]) {
        nodes.iter().for_each(|node| self.inner.kill(*node));
        for node in nodes {
            let disk = self.disk(*node);
            disk.unmount().and_then(|()| disk.mount()).unwrap_or_else(|error| panic!("{error}"));
        }
        nodes.iter().for_each(|node| self.inner.start_node(*node));
    }
}

impl Drop for OnDisks {
    fn drop(&mut self) {
        // A mount is busy as long as a process has a file there, and its place as long as it is mounted.
        self.inner.cluster.kill_all().ok();
        self.disks.clear();
    }
}

/// How long a mount may be busy after the end of the last process that had a file there.
const LET_GO: Duration = Duration::from_secs(10);

/// ext4 in a file, mounted. The kernel takes the loop device away with the mount.
pub struct Disk {
    image: PathBuf,
    at: PathBuf,
    is_mounted: bool,
}

impl Disk {
    /// With a directory's files on it.
    pub fn make(files: &Path, image: &Path, at: PathBuf) -> Result<Disk, String> {
        let file = File::create(image).and_then(|file| file.set_len(IMAGE_BYTES));
        file.map_err(|error| format!("{}: {error}", image.display()))?;
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-d"]).arg(files).arg(image))?;
        let mut disk = Disk { image: image.to_owned(), at, is_mounted: false };
        disk.mount()?;
        Ok(disk)
    }

    pub fn mount(&mut self) -> Result<(), String> {
        run(Command::new("mount").args(["-o", "loop"]).arg(&self.image).arg(&self.at))?;
        self.is_mounted = true;
        Ok(())
    }

    /// The kernel closes the files of a process that had a ring some time after its end: until then it is busy.
    pub fn unmount(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + LET_GO;
        while let Err(error) = run(Command::new("umount").arg(&self.at)) {
            if Instant::now() > deadline {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        self.is_mounted = false;
        Ok(())
    }

    pub fn shut_down(&self) -> Result<(), String> {
        shut_down(&self.at)
    }
}

/// The power of the ext4 that is mounted there goes.
pub fn shut_down(at: &Path) -> Result<(), String> {
    let root = File::open(at).map_err(|error| format!("{}: {error}", at.display()))?;
    // SAFETY: the opcode is ext4's, and takes a pointer to a u32, which `Setter` hands it.
    let done = unsafe { ioctl(&root, Setter::<SHUTDOWN, u32>::new(NO_LOG_FLUSH)) };
    done.map_err(|error| format!("ext4 cannot be shut down here: {error}"))
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.is_mounted && self.unmount().is_err() {
            // Busy: it goes when the last file is closed.
            run(Command::new("umount").arg("--lazy").arg(&self.at)).ok();
        }
    }
}

/// A file system on which nothing moves; thawed when dropped.
pub struct Frozen(PathBuf);

impl Frozen {
    pub fn freeze(at: &Path) -> Frozen {
        let status = Command::new("fsfreeze").arg("-f").arg(at).status().expect("fsfreeze runs");
        assert!(status.success());
        Frozen(at.to_owned())
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        Command::new("fsfreeze").arg("-u").arg(&self.0).status().expect("fsfreeze runs");
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
