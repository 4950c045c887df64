//! Bytes as operations on files and their queue, and what each says: the same on the ring, on the thread and in
//! memory.

use super::choices::Choices;
use crate::checksum::Checksum;
use crate::disk::{Buffer, Completion, Error, FileId, Files, Queue, Token, Write};
use crate::limits::BLOCK_BYTES;
use crate::sim::disk::{SimDisk, SimFiles, SimQueue};

const NAMES: [&str; 5] = ["a", "b", "c", "d/a", "d/b"];
/// Bounds on what one input does.
const OPERATIONS_MAX: usize = 20_000;
const OPEN_MAX: usize = 16;

/// Files and the queue that writes to them.
pub trait Backend {
    /// The files.
    type Files: Files;

    /// The same at each call.
    fn files(&self) -> &Self::Files;

    /// See [`Queue::submit`].
    fn submit(&mut self, write: Write);

    /// The next completion; it blocks until there is one.
    fn wait(&mut self) -> Completion;
}

/// The simulated disk. Writes complete in an order of the bytes' own.
#[derive(Debug)]
pub struct Simulated {
    disk: SimDisk,
    files: SimFiles,
    queue: SimQueue,
}

impl Simulated {
    /// An empty disk.
    pub fn new() -> Simulated {
        let disk = SimDisk::new();
        Simulated { files: disk.files(), queue: disk.queue(), disk }
    }
}

impl Default for Simulated {
    fn default() -> Simulated {
        Simulated::new()
    }
}

impl Backend for Simulated {
    type Files = SimFiles;

    fn files(&self) -> &SimFiles {
        &self.files
    }

    fn submit(&mut self, write: Write) {
        self.queue.submit(write);
    }

    fn wait(&mut self) -> Completion {
        loop {
            if let Some(completion) = self.queue.take() {
                return completion;
            }
            let newest = self.disk.pending().len().checked_sub(1).expect("a write is in flight");
            self.disk.complete(newest);
        }
    }
}

/// Carries the operations out in an empty directory: what each of them says, and at last what every file holds.
pub fn operations(backend: &mut impl Backend, input: &[u8]) -> Vec<String> {
    let mut choices = Choices::new(input);
    let mut run = Run { backend, open: Vec::new(), next_token: 1 };
    let mut said = Vec::new();
    while !choices.is_done() && said.len() < OPERATIONS_MAX {
        let one = run.operation(&mut choices);
        said.push(format!("{}: {one}", said.len()));
    }
    run.close_all();
    run.contents(&mut said);
    said
}

struct Run<'b, B> {
    backend: &'b mut B,
    /// With whether they take writes.
    open: Vec<(FileId, bool)>,
    next_token: u64,
}

impl<B: Backend> Run<'_, B> {
    fn operation(&mut self, choices: &mut Choices<'_>) -> String {
        match choices.below(16) {
            0..=2 => self.open(choices),
            3 => self.write(choices),
            4 => self.zero(choices),
            5 | 6 => self.read(choices),
            7 => self.length(choices),
            8..=10 => self.queue(choices),
            11 => self.sync(choices),
            12 => self.close(choices),
            13 => {
                let (from, to) = (name(choices), name(choices));
                format!("rename {from} {to}: {}", shown(self.backend.files().rename(from, to)))
            }
            14 => {
                let name = name(choices);
                format!("remove {name}: {}", shown(self.backend.files().remove(name)))
            }
            _ => self.directories(choices),
        }
    }

    fn open(&mut self, choices: &mut Choices<'_>) -> String {
        let (name, way) = (name(choices), choices.below(4));
        if self.open.len() >= OPEN_MAX {
            return "enough is open".to_owned();
        }
        let files = self.backend.files();
        let opened = match way {
            0 | 1 => files.create(name),
            2 => files.open(name),
            _ => files.open_read(name),
        };
        if let Ok(file) = &opened {
            self.open.push((*file, way < 3));
        }
        format!("open {name} {way}: {}", shown(opened.map(drop)))
    }

    fn write(&self, choices: &mut Choices<'_>) -> String {
        let Some(file) = self.any(choices) else { return nothing() };
        let (offset, length) = (offset(choices), choices.below(9_000) as usize);
        let bytes = vec![choices.byte(); length];
        format!("write {offset}+{length}: {}", shown(self.backend.files().write(file, offset, &bytes)))
    }

    fn zero(&self, choices: &mut Choices<'_>) -> String {
        let Some(file) = self.any(choices) else { return nothing() };
        let (offset, length) = (offset(choices), choices.below(20_000));
        format!("zero {offset}+{length}: {}", shown(self.backend.files().zero(file, offset, length)))
    }

    fn read(&self, choices: &mut Choices<'_>) -> String {
        let Some(file) = self.any(choices) else { return nothing() };
        let (offset, length) = (offset(choices), choices.below(20_000) as usize);
        let mut bytes = vec![0; length];
        let said = self.backend.files().read(file, offset, &mut bytes);
        let sum = if said.is_ok() { Checksum::of(&bytes).0 } else { 0 };
        format!("read {offset}+{length}: {sum:08x} {}", shown(said))
    }

    fn length(&self, choices: &mut Choices<'_>) -> String {
        let Some(file) = self.any(choices) else { return nothing() };
        format!("length {:?}", self.backend.files().length(file).map_err(|error| error.kind()))
    }

    fn sync(&self, choices: &mut Choices<'_>) -> String {
        let Some(file) = self.any(choices) else { return nothing() };
        format!("sync: {}", shown(self.backend.files().sync(file)))
    }

    /// Some writes that do not overlap, in flight together. An error is for good, so none is provoked: only a file
    /// that takes writes is written.
    fn queue(&mut self, choices: &mut Choices<'_>) -> String {
        let writable: Vec<FileId> = self.open.iter().filter(|(_, writes)| *writes).map(|(file, _)| *file).collect();
        let at = choices.byte() as usize;
        let Some(&file) = writable.get(at % writable.len().max(1)) else { return nothing() };
        let (first, depth, blocks, fill) =
            (choices.below(16), 1 + choices.below(4), 1 + choices.below(4), choices.byte());
        for at in 0..depth {
            let mut buffer = Buffer::with_capacity(blocks as usize * BLOCK_BYTES);
            buffer.pad_to_capacity();
            buffer.fill(fill.wrapping_add(at as u8));
            let offset = (first + at * blocks) * BLOCK_BYTES as u64;
            self.backend.submit(Write { token: Token(self.next_token + at), file, offset, buffer });
        }
        let mut said: Vec<(Token, String)> = (0..depth)
            .map(|_| self.backend.wait())
            .map(|completion| (completion.token, shown(completion.result)))
            .collect();
        said.sort();
        self.next_token += depth;
        format!("queue {first}+{depth}x{blocks}: {said:?}")
    }

    fn close(&mut self, choices: &mut Choices<'_>) -> String {
        let at = choices.below(1 << 8) as usize;
        if self.open.is_empty() {
            return nothing();
        }
        self.backend.files().close(self.open.swap_remove(at % self.open.len()).0);
        "close".to_owned()
    }

    fn directories(&self, choices: &mut Choices<'_>) -> String {
        let files = self.backend.files();
        match choices.below(2) {
            0 => {
                format!("directory: {}", shown(files.create_directory("d").and_then(|()| files.sync_directory("d"))))
            }
            _ => format!("list {:?} {:?}", files.list("").ok(), files.list("d").ok()),
        }
    }

    fn any(&self, choices: &mut Choices<'_>) -> Option<FileId> {
        let at = choices.byte() as usize;
        self.open.get(at % self.open.len().max(1)).map(|(file, _)| *file)
    }

    fn close_all(&mut self) {
        self.open.drain(..).for_each(|(file, _)| self.backend.files().close(file));
    }

    fn contents(&self, said: &mut Vec<String>) {
        let files = self.backend.files();
        for name in NAMES {
            let Ok(file) = files.open_read(name) else { continue };
            let length = files.length(file).expect("it is open");
            let mut bytes = vec![0; length as usize];
            let read = files.read(file, 0, &mut bytes);
            said.push(format!("{name}: {length} {:08x} {}", Checksum::of(&bytes).0, shown(read)));
            files.close(file);
        }
    }
}

fn name(choices: &mut Choices<'_>) -> &'static str {
    NAMES[choices.below(NAMES.len() as u64) as usize]
}

/// In the first blocks, at their edges more often than elsewhere.
fn offset(choices: &mut Choices<'_>) -> u64 {
    match choices.below(4) {
        0 => choices.below(16) * BLOCK_BYTES as u64,
        1 => choices.below(100) * 512,
        _ => choices.below(60_000),
    }
}

fn nothing() -> String {
    "nothing is open".to_owned()
}

fn shown(said: Result<(), Error>) -> String {
    match said {
        Ok(()) => "fine".to_owned(),
        Err(error) => format!("{:?} {:?}", error.operation, error.kind()),
    }
}
