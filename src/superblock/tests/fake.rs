//! A disk in memory that forgets at a cut of power: sectors that were not flushed, and names in a directory that was
//! not. It is cut off after a set number of operations, and gives errors where it is told to.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

use crate::disk::{Error, FileId, Files, Operation};
use crate::limits::SECTOR_BYTES;

#[derive(Clone, Debug, Default)]
pub struct FakeFiles {
    disk: RefCell<Disk>,
}

#[derive(Clone, Debug, Default)]
struct Disk {
    /// By id: a file outlives its name.
    files: BTreeMap<u64, Content>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// Blocks of the file whose reads fail.
    unreadable: BTreeSet<(u64, u64)>,
    /// Operations left until power is cut; the last one is carried out in memory but not reported.
    operations_left: Option<usize>,
    operations: usize,
    pub syncs_fail: bool,
}

#[derive(Clone, Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    durable: Vec<u8>,
}

impl FakeFiles {
    /// A disk that holds one durable file.
    pub fn with_file(name: &str, bytes: Vec<u8>) -> FakeFiles {
        let files = FakeFiles::default();
        {
            let mut disk = files.disk.borrow_mut();
            disk.files.insert(1, Content { durable: bytes.clone(), bytes });
            disk.names.insert(name.to_string(), 1);
            disk.durable_names = disk.names.clone();
        }
        files
    }

    /// Power goes after this many more operations that change something.
    pub fn cut_after(&self, operations: usize) {
        self.disk.borrow_mut().operations_left = Some(operations);
    }

    pub fn fail_syncs(&self) {
        self.disk.borrow_mut().syncs_fail = true;
    }

    pub fn make_unreadable(&self, block: u64) {
        self.disk.borrow_mut().unreadable.insert((1, block * 4096));
    }

    /// How many operations were made that change something.
    pub fn operations(&self) -> usize {
        self.disk.borrow().operations
    }

    /// What is there after the cut: of the unflushed sectors those for which `survives` says so, counted from 0 over
    /// all files; of the directory, what was flushed, or (`names_survive`) all of it.
    pub fn after_cut(&self, names_survive: bool, mut survives: impl FnMut(usize) -> bool) -> FakeFiles {
        let mut disk = self.disk.borrow().clone();
        let mut unflushed = 0;
        for content in disk.files.values_mut() {
            let length = content.bytes.len().max(content.durable.len());
            content.bytes.resize(length, 0);
            content.durable.resize(length, 0);
            for (new, old) in content.bytes.chunks(SECTOR_BYTES).zip(content.durable.chunks_mut(SECTOR_BYTES)) {
                if new != old {
                    if survives(unflushed) {
                        old.copy_from_slice(new);
                    }
                    unflushed += 1;
                }
            }
            content.bytes = content.durable.clone();
        }
        if names_survive {
            disk.durable_names = disk.names.clone();
        }
        disk.names = disk.durable_names.clone();
        disk.operations_left = None;
        FakeFiles { disk: RefCell::new(disk) }
    }

    /// The bytes of a file as they would be read.
    pub fn bytes(&self, name: &str) -> Vec<u8> {
        let disk = self.disk.borrow();
        disk.files[&disk.names[name]].bytes.clone()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Disk) -> Result<T, Error>) -> Result<T, Error> {
        let mut disk = self.disk.borrow_mut();
        let cut = || Error::new(Operation::Write, "fake", io::Error::other("power is off"));
        if disk.operations_left == Some(0) {
            return Err(cut());
        }
        disk.operations += 1;
        let left = disk.operations_left.map(|left| left - 1);
        disk.operations_left = left;
        let result = change(&mut disk);
        if left == Some(0) { Err(cut()) } else { result }
    }

    fn find(&self, name: &str) -> Result<FileId, Error> {
        let disk = self.disk.borrow();
        disk.names.get(name).map(|id| FileId(*id)).ok_or_else(|| not_found(Operation::Open, name))
    }
}

impl Files for FakeFiles {
    fn reads_past_cache(&self) -> bool {
        true
    }

    type Map = Vec<u8>;

    fn list(&self, _: &str) -> Result<Vec<String>, Error> {
        Ok(self.disk.borrow().names.keys().cloned().collect())
    }

    fn create_directory(&self, _: &str) -> Result<(), Error> {
        Ok(())
    }

    fn create(&self, name: &str) -> Result<FileId, Error> {
        self.change(|disk| {
            if disk.names.contains_key(name) {
                return Err(Error::new(Operation::Create, name, io::ErrorKind::AlreadyExists));
            }
            let id = disk.files.keys().max().map_or(1, |last| last + 1);
            disk.files.insert(id, Content::default());
            disk.names.insert(name.to_string(), id);
            Ok(FileId(id))
        })
    }

    fn open(&self, name: &str) -> Result<FileId, Error> {
        self.find(name)
    }

    fn open_read(&self, name: &str) -> Result<FileId, Error> {
        self.find(name)
    }

    fn length(&self, file: FileId) -> Result<u64, Error> {
        Ok(self.disk.borrow().files[&file.0].bytes.len() as u64)
    }

    fn read(&self, file: FileId, offset: u64, buffer: &mut [u8]) -> Result<(), Error> {
        let disk = self.disk.borrow();
        if disk.unreadable.contains(&(file.0, offset)) {
            return Err(Error::new(Operation::Read, "fake", io::Error::from_raw_os_error(5)).at(offset));
        }
        let range = offset as usize..offset as usize + buffer.len();
        let bytes = disk.files[&file.0].bytes.get(range);
        buffer.copy_from_slice(bytes.ok_or_else(|| Error::new(Operation::Read, "fake", io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn write(&self, file: FileId, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        self.change(|disk| {
            let content = disk.files.get_mut(&file.0).expect("the file is open");
            let end = offset as usize + bytes.len();
            content.bytes.resize(content.bytes.len().max(end), 0);
            content.bytes[offset as usize..end].copy_from_slice(bytes);
            disk.unreadable.retain(|(of, at)| *of != file.0 || !(offset..end as u64).contains(at));
            Ok(())
        })
    }

    fn zero(&self, _: FileId, _: u64, _: u64) -> Result<(), Error> {
        panic!("the superblock needs no zero-filling")
    }

    fn allocate(&self, file: FileId, bytes: u64) -> Result<(), Error> {
        self.zero(file, 0, bytes)
    }

    fn sync(&self, file: FileId) -> Result<(), Error> {
        self.change(|disk| {
            if disk.syncs_fail {
                return Err(Error::new(Operation::Flush, "fake", io::Error::from_raw_os_error(5)));
            }
            let content = disk.files.get_mut(&file.0).expect("the file is open");
            content.durable = content.bytes.clone();
            Ok(())
        })
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        self.change(|disk| {
            let id = disk.names.remove(from).ok_or_else(|| not_found(Operation::Rename, from))?;
            disk.names.insert(to.to_string(), id);
            Ok(())
        })
    }

    fn remove(&self, name: &str) -> Result<(), Error> {
        self.change(|disk| disk.names.remove(name).map(|_| ()).ok_or_else(|| not_found(Operation::Remove, name)))
    }

    fn sync_directory(&self, _: &str) -> Result<(), Error> {
        self.change(|disk| {
            disk.durable_names = disk.names.clone();
            Ok(())
        })
    }

    fn map(&self, file: FileId) -> Result<Vec<u8>, Error> {
        Ok(self.disk.borrow().files[&file.0].bytes.clone())
    }

    fn free_bytes(&self) -> Result<u64, Error> {
        Ok(u64::MAX)
    }

    fn close(&self, _: FileId) {}
}

fn not_found(operation: Operation, name: &str) -> Error {
    Error::new(operation, name, io::ErrorKind::NotFound)
}
