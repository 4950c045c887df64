//! A disk under real processes that forgets what was not flushed: the simulated disk, mounted through FUSE.
//!
//! ```text
//!   a process (pwrite, fdatasync, io_uring)        the test's process
//!        │                                              │ on, cut, forget
//!      kernel ── /dev/fuse ── thread: request ──▶ Session ──▶ SimDisk: durable sectors + what is loose above them
//! ```
//!
//! What is loose, and what a cut of power makes of it, is [`trilith::sim::disk`]'s: any subset of the sectors that were
//! written and not flushed, of lengths, of names in a directory that was not flushed. The kernel caches nothing of
//! it: each read and write comes here (FOPEN_DIRECT_IO), entries and attributes are valid for the moment alone. A write
//! through O_DSYNC comes with that flag, and makes its own bytes durable and no others.
//!
//! The protocol is spoken here, not by a crate: `fuser` has no answer to O_TMPFILE, by which the log finds out that a
//! file system has O_DIRECT; without it io_uring is refused.
//!
//! A file system is taken off when its value is dropped, also after a panic. Requests that were not answered are
//! ended by that, so that a process that waits for one can die.

mod protocol;
mod requests;
pub mod steps;

use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use trilith::random::Random;
use trilith::sim::disk::{Code, SimDisk};

use protocol::{REQUEST_BYTES_MAX, Request};
use requests::Session;
use steps::{Gate, Let};

const DEVICE: &str = "/dev/fuse";

/// What is to happen while the power is on.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// So many operations of the disk are carried out, and in the next one the power goes.
    pub cut_after: Option<u64>,
    /// One of the kind is let through so often, and then this.
    pub fault: Option<(When, u64, Fault)>,
    /// Each of the kind takes so long, one after another.
    pub slow: Option<(When, Duration)>,
    /// Reads and writes that move less than they were asked to.
    pub short_per_mille: u64,
    /// Whether it looks like a file system with O_DIRECT.
    pub is_direct: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum When {
    /// One with O_DSYNC.
    DurableWrite,
    Flush,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Once.
    Fails(Code),
    /// It is never answered, and none of its kind after it.
    Hangs,
}

/// What came in while the power was on.
#[derive(Clone, Copy, Default, Debug)]
pub struct Counts {
    pub writes: u64,
    /// Those with O_DSYNC.
    pub durable_writes: u64,
    pub flushes: u64,
    pub short: u64,
}

/// A file system that can be mounted as often as wanted. What was durable stays.
pub struct Forgetful {
    at: PathBuf,
    /// None when it is being dropped.
    orders: Option<Sender<Order>>,
    ended: Receiver<Counts>,
    is_mounted: bool,
    power: Arc<Power>,
    /// Where a process may be stopped, in the middle of what it does.
    pub gate: Arc<Gate>,
    thread: Option<JoinHandle<()>>,
}

enum Order {
    Serve(File, Plan),
    Forget(u64),
}

#[derive(Default)]
struct Power {
    /// The test wants it to go.
    pull: AtomicBool,
    /// It has gone: by the plan, or because the test wants so.
    is_off: AtomicBool,
}

impl Plan {
    /// Nothing happens.
    pub fn calm(seed: u64) -> Plan {
        Plan { seed, cut_after: None, fault: None, slow: None, short_per_mille: 0, is_direct: true }
    }
}

impl Forgetful {
    /// An empty disk, to be mounted at a directory that exists.
    pub fn make(at: &Path) -> Forgetful {
        let (orders, incoming) = channel();
        let (finished, ended) = channel();
        let power = Arc::new(Power::default());
        let shared = power.clone();
        let gate = Arc::new(Gate::default());
        let guarded = gate.clone();
        let thread = std::thread::spawn(move || {
            let disk = SimDisk::new();
            for order in incoming {
                match order {
                    Order::Serve(device, plan) => {
                        let counts = serve(&device, Session::new(&disk, plan), &disk, &shared, &guarded);
                        // Nobody waits for it where the file system is being dropped.
                        finished.send(counts).ok();
                    }
                    Order::Forget(seed) => disk.crash(&mut Random::seeded(seed)),
                }
            }
        });
        Forgetful {
            at: at.to_owned(),
            orders: Some(orders),
            ended,
            is_mounted: false,
            power,
            gate,
            thread: Some(thread),
        }
    }

    /// The power comes on: the file system is there.
    pub fn on(&mut self, plan: Plan) -> Result<(), String> {
        let device = File::options().read(true).write(true).open(DEVICE);
        let device = device.map_err(|error| format!("{DEVICE}: {error}"))?;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
        let options = CString::new(options).expect("there is no zero in it");
        let flags = MountFlags::NODEV | MountFlags::NOSUID;
        mount("forgetful", &self.at, "fuse", flags, options.as_c_str())
            .map_err(|error| format!("a file system in a process cannot be mounted here: {error}"))?;
        self.is_mounted = true;
        self.power.pull.store(false, Ordering::SeqCst);
        self.power.is_off.store(false, Ordering::SeqCst);
        self.order(Order::Serve(device, plan));
        Ok(())
    }

    /// From the next operation on nothing is carried out any more; all are told EIO.
    pub fn cut(&self) {
        self.power.pull.store(true, Ordering::SeqCst);
    }

    /// Whether the power went as planned.
    pub fn is_off(&self) -> bool {
        self.power.is_off.load(Ordering::SeqCst)
    }

    /// Takes the file system off. Processes that had files there are told that it is gone.
    pub fn off(&mut self) -> Counts {
        self.unmount();
        self.ended.recv().expect("the thread serves what is mounted")
    }

    /// What was loose is kept or lost, each thing by itself.
    pub fn forget(&mut self, seed: u64) {
        assert!(!self.is_mounted, "nothing is forgotten while the power is on");
        self.order(Order::Forget(seed));
    }

    fn order(&self, order: Order) {
        let orders = self.orders.as_ref().expect("it is taken by drop alone");
        orders.send(order).expect("the thread lives as long as its orders");
    }

    fn unmount(&mut self) {
        if std::mem::take(&mut self.is_mounted) {
            self.gate.open(Let::Refused);
            // By force: requests without an answer are ended. Lazily: a process may still have a file there.
            let said = unmount(&self.at, UnmountFlags::FORCE | UnmountFlags::DETACH);
            if let Err(error) = said {
                eprintln!("{} cannot be taken off: {error}", self.at.display());
            }
        }
    }
}

impl Drop for Forgetful {
    fn drop(&mut self) {
        self.unmount();
        self.orders = None;
        let thread = self.thread.take().expect("it is taken by drop alone");
        if thread.join().is_err() && !std::thread::panicking() {
            panic!("the thread of a file system panicked");
        }
    }
}

/// Until it is taken off.
fn serve(device: &File, mut session: Session<'_>, disk: &SimDisk, power: &Power, gate: &Gate) -> Counts {
    let mut buffer = vec![0; REQUEST_BYTES_MAX];
    loop {
        let length = match rustix::io::read(device, &mut buffer) {
            Ok(length) => length,
            // The request was taken back, or the call was interrupted.
            Err(Errno::NOENT | Errno::INTR | Errno::AGAIN) => continue,
            // It was taken off: at once, or while requests were open.
            Err(Errno::NODEV | Errno::CONNABORTED) => break,
            Err(error) => panic!("{DEVICE}: {error}"),
        };
        if power.pull.load(Ordering::SeqCst) {
            session.cut();
        }
        let request = Request::parse(&buffer[..length]);
        let passed = session.seen(&request).map_or(Let::Done, |seen| gate.pass(seen));
        let answer = match passed {
            Let::Done => session.carry_out(&request),
            Let::Refused => Some(protocol::answer(request.unique, Err(Errno::IO.raw_os_error()))),
            Let::Cut => {
                session.cut();
                session.carry_out(&request)
            }
        };
        power.is_off.store(disk.is_off(), Ordering::SeqCst);
        if let Some(answer) = answer {
            match rustix::io::write(device, &answer) {
                // Nobody waits for it any more, or all is over, which the next read will say.
                Ok(_) | Err(Errno::NOENT | Errno::NODEV | Errno::CONNABORTED) => {}
                Err(error) => panic!("{DEVICE}: {error}"),
            }
        }
    }
    session.end()
}

/// What stands in the way on this machine, and what it would take.
pub fn obstacle() -> Option<(String, String)> {
    let needs = format!("root {DEVICE}");
    if !rustix::process::geteuid().is_root() {
        return Some(("not root".to_owned(), needs));
    }
    if !Path::new(DEVICE).exists() {
        return Some((format!("no {DEVICE}"), needs));
    }
    let home = tempfile::tempdir().expect("a directory can be made");
    let mut disk = Forgetful::make(home.path());
    // A right that a container withholds is seen only in the trial.
    disk.on(Plan::calm(0)).err().map(|reason| (reason, String::new()))
}

mod tests;
