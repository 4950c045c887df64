//! What a log stands on while its power is cut.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tempfile::TempDir;
use trilith::random::Random;

use crate::forgetful::{Counts, Forgetful, Plan};
use crate::power_cut::{Disk, shut_down};

/// Operations of a disk in which a log is made, recovered, and in use.
const MAKING_MAX: u64 = 10_000;
/// How often the making of one log is cut.
const MAKINGS_CUT: u64 = 3;
const RECOVERY_MAX: u64 = 150;
const LOAD_MAX: u64 = 2500;
const SHORT_PER_MILLE: u64 = 30;
/// Of so many cuts on ext4 one falls into what a process does first, after this time at most: it starts, and recovers.
const EARLY: u64 = 3;
const EARLY_MICROSECONDS_MAX: u64 = 60_000;

/// A disk with a switch.
pub trait Ground {
    /// The log's directory.
    fn directory(&self) -> &Path;
    /// The power comes on, for as long as the test likes.
    fn on(&mut self);
    /// The power comes on, and may go by itself, now or later.
    fn on_until_cut(&mut self, cut: u64, is_made: bool);
    /// It went by itself.
    fn is_off(&self) -> bool;
    /// It goes now.
    fn cut(&mut self);
    /// What was not flushed is gone, or not. No process has a file there.
    fn lose(&mut self, cut: u64);
    /// What came of it, in words.
    fn summary(&self) -> String;
}

/// ext4 in a file, whose page cache and journal are lost.
pub struct OnExt4 {
    disk: Disk,
    /// Where it is mounted.
    at: PathBuf,
    directory: PathBuf,
    seed: u64,
    /// It goes by itself.
    early: Option<Early>,
    _home: TempDir,
}

/// A cut that a thread makes.
struct Early {
    /// It goes now.
    is_off: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl OnExt4 {
    pub fn make(seed: u64) -> OnExt4 {
        let home = tempfile::tempdir().expect("a directory can be made");
        let (from, at) = (home.path().join("from"), home.path().join("at"));
        std::fs::create_dir(&from).and_then(|()| std::fs::create_dir(&at)).expect("directories can be made");
        let disk = Disk::make(&from, &home.path().join("image"), at.clone()).unwrap_or_else(|error| panic!("{error}"));
        OnExt4 { disk, directory: at.join("log"), at, seed, early: None, _home: home }
    }
}

impl Ground for OnExt4 {
    fn directory(&self) -> &Path {
        &self.directory
    }

    fn on(&mut self) {}

    /// By itself only where there is a log to recover.
    fn on_until_cut(&mut self, cut: u64, is_made: bool) {
        let mut random = Random::seeded(self.seed ^ (cut << 8));
        if !is_made || random.below(EARLY) > 0 {
            return;
        }
        let delay = Duration::from_micros(random.below(EARLY_MICROSECONDS_MAX));
        let (is_off, at) = (Arc::new(AtomicBool::new(false)), self.at.clone());
        let told = is_off.clone();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(delay);
            // Before it goes: who complains of that finds that it went.
            told.store(true, Ordering::SeqCst);
            shut_down(&at).unwrap_or_else(|error| panic!("{error}"));
        });
        self.early = Some(Early { is_off, thread });
    }

    fn is_off(&self) -> bool {
        self.early.as_ref().is_some_and(|early| early.is_off.load(Ordering::SeqCst))
    }

    fn cut(&mut self) {
        match self.early.take() {
            Some(early) => early.thread.join().expect("the power can be cut"),
            None => self.disk.shut_down().unwrap_or_else(|error| panic!("{error}")),
        }
    }

    fn lose(&mut self, _cut: u64) {
        self.disk.unmount().unwrap_or_else(|error| panic!("{error}"));
        self.disk.mount().unwrap_or_else(|error| panic!("{error}"));
    }

    fn summary(&self) -> String {
        "ext4".to_owned()
    }
}

/// The disk that forgets.
pub struct OnForgetful {
    // Taken off before its place is removed.
    disk: Forgetful,
    home: TempDir,
    seed: u64,
    is_direct: bool,
    /// Whether reads and writes move a part now and then.
    has_short: bool,
    counts: Counts,
}

impl OnForgetful {
    pub fn make(seed: u64, is_direct: bool, has_short: bool) -> OnForgetful {
        let home = tempfile::tempdir().expect("a directory can be made");
        let disk = Forgetful::make(home.path());
        OnForgetful { disk, home, seed, is_direct, has_short, counts: Counts::default() }
    }

    pub fn on_with(&mut self, plan: Plan) {
        self.disk.on(plan).unwrap_or_else(|error| panic!("{error}"));
    }

    pub fn off(&mut self) {
        let counts = self.disk.off();
        self.counts.writes += counts.writes;
        self.counts.durable_writes += counts.durable_writes;
        self.counts.flushes += counts.flushes;
        self.counts.short += counts.short;
    }

    pub fn calm(&self) -> Plan {
        Plan { is_direct: self.is_direct, ..Plan::calm(self.seed) }
    }
}

impl Ground for OnForgetful {
    fn directory(&self) -> &Path {
        self.home.path()
    }

    fn on(&mut self) {
        self.on_with(self.calm());
    }

    /// In the midst of an operation: of the first ones, which make or recover the log, or of later ones.
    fn on_until_cut(&mut self, cut: u64, is_made: bool) {
        let mut random = Random::seeded(self.seed ^ (cut << 8));
        let cut_after = match random.below(4) {
            // The making of a log tries how fast the disk flushes, in as many operations as the time allows.
            _ if !is_made && cut < MAKINGS_CUT => Some(random.below(MAKING_MAX)),
            // On a busy machine hardly one would come to its end: then there is a log to cut.
            _ if !is_made => None,
            0 => Some(random.below(RECOVERY_MAX)),
            _ => Some(random.between(RECOVERY_MAX, LOAD_MAX)),
        };
        let is_short = self.has_short && random.below(3) == 0;
        let short_per_mille = if is_short { SHORT_PER_MILLE } else { 0 };
        self.on_with(Plan { seed: random.next_u64(), cut_after, short_per_mille, ..self.calm() });
    }

    fn is_off(&self) -> bool {
        self.disk.is_off()
    }

    fn cut(&mut self) {
        self.disk.cut();
    }

    fn lose(&mut self, cut: u64) {
        self.off();
        self.disk.forget(self.seed ^ (cut << 8) ^ 1);
    }

    fn summary(&self) -> String {
        let Counts { writes, durable_writes, flushes, short } = self.counts;
        format!("{writes} writes, {durable_writes} of them through O_DSYNC, {flushes} flushes, {short} short transfers")
    }
}
