//! The kernel's requests, carried out on a [`SimDisk`].

use std::collections::BTreeMap;
use std::io::ErrorKind;

use rustix::io::Errno;
use trilith::disk::{Buffer, Error, FileId, Files, Queue, Token, Write};
use trilith::limits::{BLOCK_BYTES, SECTOR_BYTES};
use trilith::random::Random;
use trilith::sim::disk::{Code, Failure, SimDisk, SimFiles, SimQueue};

use super::protocol::{self, Attributes, Call, Number, ROOT, Request};
use super::steps::{Act, Seen};
use super::{Counts, Fault, Plan, When};

/// What the kernel says of a disk of this size.
const TOTAL_BYTES: u64 = 1 << 40;

/// One mount: what the kernel was told of, and what is still to go wrong.
pub struct Session<'a> {
    disk: &'a SimDisk,
    files: SimFiles,
    queue: SimQueue,
    plan: Plan,
    random: Random,
    nodes: BTreeMap<Number, Node>,
    by_name: BTreeMap<String, Number>,
    next: Number,
    counts: Counts,
}

#[derive(Clone)]
enum Node {
    Directory(String),
    File(FileId),
    /// Made to try what the file system can do, and never looked at again: it takes everything and holds nothing.
    Nameless,
}

type Answer = Result<Vec<u8>, Errno>;

impl<'a> Session<'a> {
    pub fn new(disk: &'a SimDisk, plan: Plan) -> Session<'a> {
        if let Some(operations) = plan.cut_after {
            disk.crash_at(disk.operations() + operations);
        }
        let random = Random::seeded(plan.seed);
        let nodes = BTreeMap::from([(ROOT, Node::Directory(String::new()))]);
        let (files, queue) = (disk.files(), disk.queue());
        let by_name = BTreeMap::new();
        Session { disk, files, queue, plan, random, nodes, by_name, next: ROOT + 1, counts: Counts::default() }
    }

    /// The power goes now.
    pub fn cut(&self) {
        if !self.disk.is_off() {
            self.disk.crash_at(self.disk.operations());
        }
    }

    /// The file system is taken off: what is open is closed, and nothing else happens to it.
    pub fn end(self) -> Counts {
        for node in self.nodes.into_values() {
            if let Node::File(file) = node {
                self.files.close(file);
            }
        }
        self.counts
    }

    /// None if the kernel gets no answer: it expects none, or the disk hangs.
    pub fn carry_out(&mut self, request: &Request<'_>) -> Option<Vec<u8>> {
        let when = match request.call {
            Call::Silent => return None,
            Call::Write { is_durable: true, .. } => Some(When::DurableWrite),
            // A segment that is not in use yet: the log makes another, and nothing has failed.
            Call::Sync if !self.is_preparing(request.on) => Some(When::Flush),
            _ => None,
        };
        if self.disk.is_off() {
            return Some(protocol::answer(request.unique, Err(Errno::IO.raw_os_error())));
        }
        let fault = when.and_then(|when| self.fault(when));
        if matches!(fault, Some(Fault::Hangs)) {
            return None;
        }
        if let Some(Fault::Fails(code)) = fault {
            self.disk.fail_at(self.disk.operations(), Failure::Error(code));
        }
        if let Some((slow, time)) = self.plan.slow
            && when == Some(slow)
        {
            std::thread::sleep(time);
        }
        let said = self.answer(request);
        Some(protocol::answer(request.unique, said.map_err(Errno::raw_os_error)))
    }

    /// What becomes of this write or flush, once its turn has come.
    fn fault(&mut self, when: When) -> Option<Fault> {
        let (kind, left, fault) = self.plan.fault.as_mut()?;
        if *kind != when {
            return None;
        }
        match left.checked_sub(1) {
            Some(less) => {
                *left = less;
                None
            }
            None => {
                let fault = *fault;
                // A disk that hangs goes on hanging; one that failed once has said so.
                if fault != Fault::Hangs {
                    self.plan.fault = None;
                }
                Some(fault)
            }
        }
    }

    fn answer(&mut self, request: &Request<'_>) -> Answer {
        let on = request.on;
        match request.call {
            Call::Begin { flags } => Ok(protocol::begun(flags)),
            Call::Lookup { name } => self.lookup(&self.path(on, name)?).map(protocol::entry),
            Call::Attributes => self.attributes(on).map(protocol::attributes_now),
            Call::MakeDirectory { name } => self.make_directory(on, name),
            Call::Remove { name } => self.remove(on, name),
            Call::Rename { to_directory, from, to } => self.rename((on, from), (to_directory, to)),
            Call::Create { name } => self.create(on, name),
            Call::CreateNameless if self.plan.is_direct => {
                let made = self.insert(Node::Nameless);
                Ok([protocol::entry(self.attributes(made)?), protocol::opened()].concat())
            }
            Call::Open => self.node(on).map(|_| protocol::opened()),
            Call::Close => Ok(Vec::new()),
            Call::List { offset, bytes } => {
                let names = self.files.list(&self.directory(on)?).map_err(number)?;
                Ok(protocol::list(&names, offset, bytes))
            }
            Call::Read { offset, bytes } => self.read(on, offset, bytes),
            Call::Write { offset, bytes, is_durable } => self.write(on, offset, bytes, is_durable),
            Call::Allocate { end } => self.allocate(on, end),
            Call::Sync => self.sync(on),
            Call::SyncDirectory => self.files.sync_directory(&self.directory(on)?).map_err(number).map(|()| Vec::new()),
            Call::Space => Ok(protocol::space(self.files.free_bytes().map_err(number)?, TOTAL_BYTES)),
            Call::CreateNameless => Err(Errno::OPNOTSUPP),
            Call::Silent | Call::Unknown => Err(Errno::NOSYS),
        }
    }

    fn lookup(&mut self, path: &str) -> Result<Attributes, Errno> {
        let known = self.by_name.get(path).copied();
        let number = match known {
            Some(number) => number,
            None => {
                let node = match self.files.open(path) {
                    Ok(file) => Node::File(file),
                    Err(error) if error.kind() == ErrorKind::IsADirectory => Node::Directory(path.to_owned()),
                    Err(error) => return Err(number(error)),
                };
                self.insert_named(path, node)
            }
        };
        self.attributes(number)
    }

    fn make_directory(&mut self, on: Number, name: &str) -> Answer {
        let path = self.path(on, name)?;
        if self.lookup(&path).is_ok() {
            return Err(Errno::EXIST);
        }
        // A disk makes no difference between a directory and its entry: what follows, follows at once.
        self.files.create_directory(&path).map_err(number)?;
        self.lookup(&path).map(protocol::entry)
    }

    fn create(&mut self, on: Number, name: &str) -> Answer {
        let path = self.path(on, name)?;
        let file = self.files.create(&path).map_err(number)?;
        let made = self.insert_named(&path, Node::File(file));
        Ok([protocol::entry(self.attributes(made)?), protocol::opened()].concat())
    }

    fn remove(&mut self, on: Number, name: &str) -> Answer {
        let path = self.path(on, name)?;
        self.files.remove(&path).map_err(number)?;
        self.by_name.remove(&path);
        Ok(Vec::new())
    }

    fn rename(&mut self, from: (Number, &str), to: (Number, &str)) -> Answer {
        let (from, to) = (self.path(from.0, from.1)?, self.path(to.0, to.1)?);
        self.files.rename(&from, &to).map_err(number)?;
        self.by_name.remove(&to);
        // A directory takes along what is in it.
        let below = format!("{from}/");
        let moved: Vec<String> =
            self.by_name.keys().filter(|name| **name == from || name.starts_with(&below)).cloned().collect();
        for name in moved {
            let number = self.by_name.remove(&name).expect("it was listed");
            let name = to.clone() + &name[from.len()..];
            if let Some(Node::Directory(path)) = self.nodes.get_mut(&number) {
                path.clone_from(&name);
            }
            self.by_name.insert(name, number);
        }
        Ok(Vec::new())
    }

    fn allocate(&mut self, on: Number, end: u64) -> Answer {
        if let Node::File(file) = self.node(on)?
            && self.files.length(file).map_err(number)? < end
        {
            self.files.allocate(file, end).map_err(number)?;
        }
        Ok(Vec::new())
    }

    fn read(&mut self, on: Number, offset: u64, bytes: usize) -> Answer {
        let Node::File(file) = self.node(on)? else { return Ok(Vec::new()) };
        let length = self.files.length(file).map_err(number)?;
        let whole = (length.saturating_sub(offset)).min(bytes as u64) as usize;
        let mut buffer = vec![0; self.short(whole)];
        self.files.read(file, offset, &mut buffer).map_err(number)?;
        Ok(buffer)
    }

    fn write(&mut self, on: Number, offset: u64, bytes: &[u8], is_durable: bool) -> Answer {
        let Node::File(file) = self.node(on)? else { return Ok(protocol::written(bytes.len())) };
        let bytes = &bytes[..self.short(bytes.len())];
        self.counts.writes += 1;
        match is_durable {
            false => self.files.write(file, offset, bytes).map_err(number)?,
            true => {
                self.counts.durable_writes += 1;
                self.write_through(file, offset, bytes)?;
            }
        }
        Ok(protocol::written(bytes.len()))
    }

    /// Makes these bytes durable and no others, as O_DSYNC does.
    fn write_through(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        let block = BLOCK_BYTES as u64;
        if !offset.is_multiple_of(block) || !(bytes.len() as u64).is_multiple_of(block) {
            self.files.write(file, offset, bytes).map_err(number)?;
            return self.files.sync(file).map_err(number);
        }
        let mut buffer = Buffer::with_capacity(bytes.len());
        buffer.extend(bytes);
        self.queue.submit(Write { token: Token(0), file, offset, buffer });
        if self.disk.is_off() {
            return Err(Errno::IO);
        }
        self.disk.complete(0);
        self.queue.take().expect("it was just completed").result.map_err(number)
    }

    fn sync(&mut self, on: Number) -> Answer {
        self.counts.flushes += 1;
        if let Node::File(file) = self.node(on)? {
            self.files.sync(file).map_err(number)?;
        }
        Ok(Vec::new())
    }

    /// How much of a transfer is done: all, or now and then a part, in whole sectors.
    fn short(&mut self, bytes: usize) -> usize {
        let sectors = bytes / SECTOR_BYTES;
        match sectors > 1 && self.random.chance(self.plan.short_per_mille) {
            true => {
                self.counts.short += 1;
                (1 + self.random.below(sectors as u64 - 1)) as usize * SECTOR_BYTES
            }
            false => bytes,
        }
    }

    fn attributes(&self, number_of: Number) -> Result<Attributes, Errno> {
        let node = self.node(number_of)?;
        let length = match &node {
            Node::File(file) => self.files.length(*file).map_err(number)?,
            Node::Directory(_) | Node::Nameless => 0,
        };
        Ok(Attributes { number: number_of, is_directory: matches!(node, Node::Directory(_)), length })
    }

    fn is_preparing(&self, on: Number) -> bool {
        self.name(on).is_some_and(|name| name.ends_with(".preparing"))
    }

    /// What a file or directory is called.
    fn name(&self, of: Number) -> Option<&str> {
        if of == ROOT {
            return Some("");
        }
        self.by_name.iter().find(|(_, number)| **number == of).map(|(name, _)| name.as_str())
    }

    /// What a request is, in the words of a [`Step`]; none of those that change and tell nothing.
    pub fn seen(&self, request: &Request<'_>) -> Option<Seen> {
        let below = |name: &str| self.path(request.on, name).ok();
        let itself = || self.name(request.on).map(str::to_owned);
        let (act, name) = match request.call {
            Call::MakeDirectory { name } => (Act::MakeDirectory, below(name)),
            Call::Create { name } => (Act::Create, below(name)),
            Call::Remove { name } => (Act::Remove, below(name)),
            Call::Rename { from, .. } => (Act::Rename, below(from)),
            Call::Read { .. } => (Act::Read, itself()),
            Call::Write { .. } => (Act::Write, itself()),
            Call::Allocate { .. } => (Act::Allocate, itself()),
            Call::Sync => (Act::Flush, itself()),
            Call::SyncDirectory => (Act::FlushDirectory, itself()),
            _ => return None,
        };
        let offset = match request.call {
            Call::Read { offset, .. } | Call::Write { offset, .. } => offset,
            _ => 0,
        };
        Some(Seen { act, name: name?, offset })
    }

    fn node(&self, number: Number) -> Result<Node, Errno> {
        self.nodes.get(&number).cloned().ok_or(Errno::STALE)
    }

    fn directory(&self, number: Number) -> Result<String, Errno> {
        match self.node(number)? {
            Node::Directory(path) => Ok(path),
            Node::File(_) | Node::Nameless => Err(Errno::NOTDIR),
        }
    }

    fn path(&self, directory: Number, name: &str) -> Result<String, Errno> {
        let directory = self.directory(directory)?;
        Ok(if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") })
    }

    fn insert(&mut self, node: Node) -> Number {
        self.nodes.insert(self.next, node);
        self.next += 1;
        self.next - 1
    }

    fn insert_named(&mut self, path: &str, node: Node) -> Number {
        let number = self.insert(node);
        self.by_name.insert(path.to_owned(), number);
        number
    }
}

/// What the kernel is told. The simulated disk has errors without a number where the kernel would have found out itself.
fn number(error: Error) -> Errno {
    match error.kind() {
        ErrorKind::NotFound => Errno::NOENT,
        ErrorKind::AlreadyExists => Errno::EXIST,
        ErrorKind::IsADirectory => Errno::ISDIR,
        ErrorKind::NotADirectory => Errno::NOTDIR,
        ErrorKind::DirectoryNotEmpty => Errno::NOTEMPTY,
        // The power is off.
        ErrorKind::Interrupted => Errno::IO,
        _ => Errno::from_io_error(&error.source).unwrap_or(Errno::IO),
    }
}

/// The error numbers of [`Code`] are the kernel's.
#[test]
fn what_a_simulated_disk_says_is_what_the_kernel_says() {
    for (code, expected) in [(Code::Io, Errno::IO), (Code::NoSpace, Errno::NOSPC), (Code::ReadOnly, Errno::ROFS)] {
        assert_eq!(Errno::from_io_error(&code.into()), Some(expected));
    }
}
