//! The simulated disk as files.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::rc::Rc;

use super::content::Content;
use super::queue::moved;
use super::state::{Open, State, Verdict, power_is_off};
use super::{Act, Code, Failure};
use crate::disk::{Error, FileId, Files, Operation, name};

/// One process's handle to the files of a [`super::SimDisk`]. Clones are the same process.
///
/// When the process has ended (a crash, or a kill), each call fails with "the power is off".
#[derive(Clone)]
pub struct SimFiles {
    pub(super) state: Rc<RefCell<State>>,
    pub(super) epoch: u64,
}

impl SimFiles {
    /// Whether it was open in this life of the process and is no more.
    fn is_closed(&self, file: FileId) -> bool {
        let state = self.state.borrow();
        state.epoch == self.epoch && !state.open.contains_key(&file)
    }

    /// Runs a call on the state of a process that lives, and puts the place into its error.
    fn call<T>(
        &self,
        operation: Operation,
        name: &str,
        call: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> Result<T, Error> {
        let mut state = self.state.borrow_mut();
        let said = if state.epoch == self.epoch { call(&mut state) } else { Err(power_is_off()) };
        said.map_err(|error| Error::new(operation, name, error))
    }

    fn named<T>(
        &self,
        act: Act,
        operation: Operation,
        name: &str,
        call: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> Result<T, Error> {
        self.call(operation, name, |state| {
            name::check(name)?;
            state.whole(act, name, call)
        })
    }

    /// As [`SimFiles::call`], for an open file.
    fn on<T>(
        &self,
        operation: Operation,
        file: FileId,
        call: impl FnOnce(&mut State, Open, &str) -> io::Result<T>,
    ) -> Result<T, Error> {
        let mut state = self.state.borrow_mut();
        if state.epoch != self.epoch {
            return Err(Error::new(operation, "", power_is_off()));
        }
        let open = state.opened(file);
        let name = state.tree.name_of(open.node);
        call(&mut state, open, &name).map_err(|error| Error::new(operation, name, error))
    }

    fn open_as(&self, name: &str, writable: bool) -> Result<FileId, Error> {
        let opened = self.named(Act::Open, Operation::Open, name, |state| {
            let node = state.tree.file(name)?;
            if let Some(code) =
                state.refused.get(name).copied().or((writable && state.read_only).then_some(Code::ReadOnly))
            {
                return Err(code.into());
            }
            if writable && state.open.values().any(|open| open.writable && open.node == node) {
                return Ok(None);
            }
            Ok(Some(insert(state, Open { node, writable })))
        })?;
        opened.ok_or_else(|| Error::new(Operation::Lock, name, io::Error::from(io::ErrorKind::WouldBlock)))
    }

    /// Writes or zeros: `put` does it, from where on and for so many bytes.
    fn change(
        &self,
        file: FileId,
        offset: u64,
        (length, bytes): (u64, &[u8]),
        put: impl FnOnce(&mut Content, u64, u64),
    ) -> Result<(), Error> {
        // As on a real disk, which is not asked then.
        if length == 0 {
            return Ok(());
        }
        let act = if bytes.is_empty() { Act::Zero } else { Act::Write };
        let said = self.on(Operation::Write, file, |state, open, name| {
            let verdict = state.begin(act, name, offset, length, bytes)?;
            if !open.writable {
                return Err(Code::BadDescriptor.into());
            }
            let (start, landing, said) = match verdict {
                Verdict::Proceeds => (offset, length, Ok(())),
                Verdict::Cut => (offset, length, Err(power_is_off())),
                Verdict::Fails(Failure::Partial { bytes, error }) => (offset, length.min(bytes), Err(error.into())),
                Verdict::Fails(Failure::Lost) => return Ok(()),
                Verdict::Fails(Failure::Misdirected { by }) => (moved(offset, by), length, Ok(())),
                Verdict::Fails(failure) => return Err(failure.error()),
            };
            state.check_room(open.node, start + length)?;
            put(state.content_mut(open.node), start, landing);
            said
        });
        said.map_err(|error| error.at(offset))
    }
}

impl Files for SimFiles {
    type Map = Vec<u8>;

    fn list(&self, directory: &str) -> Result<Vec<String>, Error> {
        self.call(Operation::List, directory, |state| {
            if !directory.is_empty() {
                name::check(directory)?;
            }
            state.whole(Act::List, directory, |state| state.tree.list(directory))
        })
    }

    fn create_directory(&self, directory: &str) -> Result<(), Error> {
        self.named(Act::Create, Operation::Create, directory, |state| state.tree.create_directory(directory))?;
        self.sync_directory(directory.split_once('/').map_or("", |(parent, _)| parent))
    }

    fn create(&self, name: &str) -> Result<FileId, Error> {
        self.named(Act::Create, Operation::Create, name, |state| {
            let node = state.tree.create_file(name)?;
            state.contents.insert(node, Rc::default());
            Ok(insert(state, Open { node, writable: true }))
        })
    }

    fn open(&self, name: &str) -> Result<FileId, Error> {
        self.open_as(name, true)
    }

    fn open_read(&self, name: &str) -> Result<FileId, Error> {
        self.open_as(name, false)
    }

    fn length(&self, file: FileId) -> Result<u64, Error> {
        self.on(Operation::Length, file, |state, open, _| match state.off {
            true => Err(power_is_off()),
            false => Ok(state.content(open.node).length()),
        })
    }

    fn read(&self, file: FileId, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        if self.is_closed(file) {
            return Err(Error::new(Operation::Read, "", io::Error::from(io::ErrorKind::NotFound)).at(offset));
        }
        let said = self.on(Operation::Read, file, |state, open, name| {
            match state.begin(Act::Read, name, offset, buffer.len() as u64, &[])? {
                Verdict::Proceeds => state.content(open.node).read(offset, buffer),
                Verdict::Cut => Err(power_is_off()),
                Verdict::Fails(failure) => Err(failure.error()),
            }
        });
        said.map_err(|error| error.at(offset))
    }

    fn write(&self, file: FileId, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        self.change(file, offset, (bytes.len() as u64, bytes), |content, start, landing| {
            content.write(start, &bytes[..landing as usize]);
        })
    }

    fn zero(&self, file: FileId, offset: u64, bytes: u64) -> Result<(), Error> {
        self.change(file, offset, (bytes, &[]), |content, start, landing| content.zero(start, landing))
    }

    fn allocate(&self, file: FileId, bytes: u64) -> Result<(), Error> {
        self.zero(file, 0, bytes)
    }

    fn sync(&self, file: FileId) -> Result<(), Error> {
        self.on(Operation::Flush, file, |state, open, name| match state.begin(Act::Flush, name, 0, 0, &[])? {
            Verdict::Proceeds => {
                state.content_mut(open.node).flush();
                Ok(())
            }
            Verdict::Cut => Err(power_is_off()),
            Verdict::Fails(Failure::Lost) => Ok(()),
            Verdict::Fails(failure) => {
                state.content_mut(open.node).abandon();
                Err(failure.error())
            }
        })
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        self.named(Act::Rename, Operation::Rename, from, |state| {
            name::check(to)?;
            state.tree.rename(from, to)?;
            state.collect();
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> Result<(), Error> {
        self.named(Act::Remove, Operation::Remove, name, |state| {
            state.tree.remove(name)?;
            state.collect();
            Ok(())
        })
    }

    fn sync_directory(&self, directory: &str) -> Result<(), Error> {
        self.call(Operation::SyncDirectory, directory, |state| {
            if !directory.is_empty() {
                name::check(directory)?;
            }
            match state.begin(Act::SyncDirectory, directory, 0, 0, &[])? {
                Verdict::Proceeds => state.tree.sync(directory)?,
                Verdict::Cut => return Err(power_is_off()),
                Verdict::Fails(failure) => return Err(failure.error()),
            }
            state.collect();
            Ok(())
        })
    }

    fn map(&self, file: FileId) -> Result<Vec<u8>, Error> {
        if self.is_closed(file) {
            return Err(Error::new(Operation::Map, "", io::Error::from(io::ErrorKind::NotFound)));
        }
        self.on(Operation::Map, file, |state, open, name| {
            match state.begin(Act::Map, name, 0, 0, &[])? {
                Verdict::Proceeds => {}
                Verdict::Cut => return Err(power_is_off()),
                Verdict::Fails(failure) => return Err(failure.error()),
            }
            let content = state.content(open.node);
            let mut bytes = vec![0; content.length() as usize];
            content.read(0, &mut bytes)?;
            Ok(bytes)
        })
    }

    fn free_bytes(&self) -> Result<u64, Error> {
        self.call(Operation::FreeSpace, "", |state| {
            state.whole(Act::FreeSpace, "", |state| Ok(state.capacity_bytes.saturating_sub(state.used_bytes())))
        })
    }

    fn reads_past_cache(&self) -> bool {
        self.state.borrow().reads_past_cache
    }

    fn close(&self, file: FileId) {
        let mut state = self.state.borrow_mut();
        if state.epoch != self.epoch {
            return;
        }
        assert!(state.open.remove(&file).is_some(), "{file:?} was closed, or never opened");
        state.collect();
    }
}

impl fmt::Debug for SimFiles {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SimFiles").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

fn insert(state: &mut State, open: Open) -> FileId {
    let file = FileId(state.next_file);
    state.next_file += 1;
    state.open.insert(file, open);
    file
}
