//! Read-only views of files, and what happens when the kernel cannot fill one.
//!
//! A mapped page is read when it is touched. If the file was cut meanwhile, or the device gives an error, there is no
//! call that could say so: the kernel sends SIGBUS, which ends a process without a word. So every view stands in a
//! table while it lives, and a handler, installed with the first view, looks the address up: if it is one of ours, it
//! writes one line that names the file and the offset, and leaves with [`MAP_FAILED_EXIT`]. Nothing is lost by that: a
//! view is never written through, and the next start reads the file by calls that return errors.
//!
//! ```text
//!   Map::new ──▶ slot: start, end, name        SIGBUS at an address ──▶ the slot around it ──▶ one line, exit 18
//!   drop     ──▶ slot free, then unmapped                            └▶ none: who handled it before us
//! ```
//!
//! The handler may run between any two instructions of any thread. It takes no lock and allocates nothing. The slot
//! that it looks for belongs to a view that the stopped thread is reading, so it does not change meanwhile; others may,
//! and are told by reading their start twice.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::ops::{Deref, Range};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering, fence};

use libc::{c_int, c_void, sigaction, siginfo_t};

/// What the process ends with: as after any other failure of the disk.
pub const MAP_FAILED_EXIT: u8 = 18;
/// Views at once, over all directories of a process: beyond it [`super::Files::map`] refuses, and one reads instead.
const MAPS_MAX: usize = 64;

/// A read-only view of a whole file.
pub struct Map {
    bytes: memmap2::Mmap,
    slot: &'static Slot,
    /// What the slot points to.
    _name: Box<str>,
}

/// Where a view lies. All but `is_taken` are for the handler.
struct Slot {
    is_taken: AtomicBool,
    /// Zero while nothing else in the slot counts.
    start: AtomicUsize,
    end: AtomicUsize,
    name: AtomicPtr<u8>,
    name_bytes: AtomicUsize,
}

static SLOTS: [Slot; MAPS_MAX] = [const { Slot::free() }; MAPS_MAX];
/// Who handled SIGBUS before us; none if the handler could not be installed.
static PREVIOUS: OnceLock<Option<sigaction>> = OnceLock::new();

impl Map {
    /// Gives the view a name, by which the handler speaks of it.
    pub(super) fn new(bytes: memmap2::Mmap, name: &str) -> io::Result<Map> {
        if PREVIOUS.get_or_init(install).is_none() {
            return Err(io::Error::other("SIGBUS cannot be handled"));
        }
        let name: Box<str> = name.into();
        let slot = Slot::take().ok_or_else(|| io::Error::other("too many files are mapped"))?;
        slot.fill(&bytes, &name);
        Ok(Map { bytes, slot, _name: name })
    }

    /// Has the kernel begin to read this part, which would otherwise come page by page, each with what lies around it.
    pub(super) fn expect(&self, part: Range<usize>) {
        let length = part.len().min(self.bytes.len().saturating_sub(part.start));
        if length > 0 {
            // If the kernel does not take the advice, pages come when they are touched.
            drop(self.bytes.advise_range(memmap2::Advice::WillNeed, part.start, length));
        }
    }
}

impl Deref for Map {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // Before the memory and the name go.
        self.slot.give_back();
    }
}

impl fmt::Debug for Map {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Map({} bytes)", self.bytes.len())
    }
}

impl Slot {
    const fn free() -> Slot {
        Slot {
            is_taken: AtomicBool::new(false),
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            name: AtomicPtr::new(ptr::null_mut()),
            name_bytes: AtomicUsize::new(0),
        }
    }

    fn take() -> Option<&'static Slot> {
        SLOTS.iter().find(|slot| !slot.is_taken.swap(true, Ordering::Acquire))
    }

    fn fill(&self, bytes: &[u8], name: &str) {
        let start = bytes.as_ptr() as usize;
        self.end.store(start + bytes.len(), Ordering::Relaxed);
        self.name.store(name.as_ptr().cast_mut(), Ordering::Relaxed);
        self.name_bytes.store(name.len(), Ordering::Relaxed);
        self.start.store(start, Ordering::Release);
    }

    fn give_back(&self) {
        self.start.store(0, Ordering::Relaxed);
        // Whoever sees what the next owner writes sees the zero as well.
        fence(Ordering::Release);
        self.is_taken.store(false, Ordering::Release);
    }

    /// The name and the offset of an address, if it lies in this view.
    fn find(&self, address: usize) -> Option<(*const u8, usize, usize)> {
        let start = self.start.load(Ordering::Acquire);
        let (end, name) = (self.end.load(Ordering::Relaxed), self.name.load(Ordering::Relaxed));
        let name_bytes = self.name_bytes.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let is_stable = start != 0 && self.start.load(Ordering::Relaxed) == start;
        let is_here = is_stable && (start..end).contains(&address);
        is_here.then(|| (name.cast_const(), name_bytes, address - start))
    }
}

/// Gives who handled SIGBUS until now.
fn install() -> Option<sigaction> {
    let mut previous = MaybeUninit::<sigaction>::zeroed();
    // SAFETY: all zeros is a value of this C structure: no handler, no flags, an empty mask.
    let mut own: sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
    own.sa_sigaction = on_sigbus as *const () as usize;
    own.sa_flags = libc::SA_SIGINFO;
    // SAFETY: both structures live until the call returns, and `on_sigbus` has the signature that SA_SIGINFO asks for.
    let said = unsafe { libc::sigaction(libc::SIGBUS, &raw const own, previous.as_mut_ptr()) };
    // SAFETY: zeroed above, and filled by a call that succeeded.
    (said == 0).then(|| unsafe { previous.assume_init() })
}

extern "C" fn on_sigbus(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a valid structure.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr() as usize) };
    // One that a process has sent carries no address.
    let found = if code > 0 { SLOTS.iter().find_map(|slot| slot.find(address)) } else { None };
    match found {
        Some((name, name_bytes, offset)) => {
            // SAFETY: the slot belongs to a view that this thread is reading: its name lives.
            let name = unsafe { std::slice::from_raw_parts(name, name_bytes) };
            say(name, offset);
            // SAFETY: ends the process at once; runs nothing of it any more.
            unsafe { libc::_exit(c_int::from(MAP_FAILED_EXIT)) }
        }
        None => pass_on(signal, info, context),
    }
}

/// One line, in one call, without allocating.
fn say(name: &[u8], offset: usize) {
    let mut digits = [0; 20];
    let offset = decimal(offset, &mut digits);
    let pieces: [&[u8]; 5] = [
        b"trilith: cannot read ",
        name,
        b" at offset ",
        offset,
        b" through memory (SIGBUS): the file was cut by another program, or the disk failed; exit 18\n",
    ];
    let pieces = pieces.map(|piece| libc::iovec { iov_base: piece.as_ptr() as *mut c_void, iov_len: piece.len() });
    // SAFETY: five pieces that outlive the call, which only reads them. Whether it could write changes nothing.
    unsafe { libc::writev(libc::STDERR_FILENO, pieces.as_ptr(), pieces.len() as c_int) };
}

fn decimal(mut value: usize, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return &digits[at..];
        }
    }
}

/// Not ours: as if we had not asked for the signal. A handler of the default kind comes back by the fault itself.
fn pass_on(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    type WithInfo = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);
    let previous = PREVIOUS.get().and_then(Option::as_ref);
    match previous {
        Some(previous) if previous.sa_sigaction != libc::SIG_DFL && previous.sa_sigaction != libc::SIG_IGN => {
            let handler = previous.sa_sigaction as *const ();
            if previous.sa_flags & libc::SA_SIGINFO == 0 {
                // SAFETY: it was installed as a handler without SA_SIGINFO, which has this signature.
                let handler = unsafe { std::mem::transmute::<*const (), extern "C" fn(c_int)>(handler) };
                handler(signal);
            } else {
                // SAFETY: it was installed as a handler with SA_SIGINFO, which has this signature.
                let handler = unsafe { std::mem::transmute::<*const (), WithInfo>(handler) };
                handler(signal, info, context);
            }
        }
        _ => {
            // SAFETY: a call that may be made in a handler.
            unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
            // A fault comes again by itself; one that was sent does not.
            // SAFETY: as above. Blocked until this handler returns.
            unsafe { libc::raise(signal) };
        }
    }
}
