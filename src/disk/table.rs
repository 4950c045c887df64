//! What is open in a directory, and what only seems to be.
//!
//! A log of thousands of segments must not hold thousands of files open. The least recently used ones are **parked**:
//! their descriptions are closed, and opened again by name when somebody wants them.
//!
//! Only a file that nobody misses is parked: no request of it is with the kernel, nothing written to it waits for a
//! flush (the kernel tells a failed one to those who had the file open), the hot path will not come for it, it still has
//! its name, and it lies in a sub-directory. Files in the root are held, because their locks, that of the superblock first
//! of all, are what keeps another process out.
//!
//! The hot path comes for what was zeroed, allocated or announced ahead, and for the file that it wrote last, however long
//! ago that is: it must not wait for an opening, which waits for whoever holds names. What it leaves behind for another
//! file is parked like any other.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::open_file::{Identity, OpenFile};
use super::queue::FileId;

/// What is open.
#[derive(Debug)]
pub(super) struct Table {
    /// The id that the next file gets; only grows.
    next: u64,
    files: BTreeMap<FileId, Entry>,
    /// Files with descriptions, by their last use.
    by_use: BTreeMap<u64, FileId>,
    /// Numbers the uses.
    uses: u64,
    /// More are open only while all of them are in use.
    open_max: usize,
    /// The file of a sub-directory that the hot path wrote last.
    hot: Option<FileId>,
}

#[derive(Debug)]
pub(super) struct Entry {
    /// Follows renames.
    pub name: String,
    /// The name still leads to the file.
    pub has_name: bool,
    /// None while it is parked.
    file: Option<Arc<OpenFile>>,
    pub identity: Identity,
    /// It was opened for writing.
    pub is_writable: bool,
    /// Its key in `by_use`.
    used: u64,
}

impl Table {
    pub fn new(open_max: usize) -> Table {
        Table { next: 0, files: BTreeMap::new(), by_use: BTreeMap::new(), uses: 0, open_max, hot: None }
    }

    pub fn find(&self, file: FileId) -> Option<&Entry> {
        self.files.get(&file)
    }

    /// Panics if it was closed, or never opened: that is our bug.
    pub fn entry(&self, file: FileId) -> &Entry {
        self.find(file).unwrap_or_else(|| panic!("{file:?} was closed, or never opened"))
    }

    /// A file's descriptions, unless it is closed or parked, or was opened again for reading and is to be written.
    pub fn descriptions(&mut self, file: FileId, to_write: bool) -> Option<Arc<OpenFile>> {
        let entry = self.find(file)?;
        let open = entry.file.clone().filter(|open| !to_write || open.is_writable() == entry.is_writable)?;
        self.touch(file);
        Some(open)
    }

    /// The hot path writes to a file; panics if it is not open. If it comes from another, that one is left behind.
    pub fn heat(&mut self, file: FileId) {
        if self.hot == Some(file) || !self.entry(file).name.contains('/') {
            return;
        }
        let before = self.hot.replace(file).and_then(|before| self.find(before));
        if let Some(open) = before.and_then(|before| before.file.as_ref()) {
            open.set_awaited(false);
        }
        if let Some(open) = &self.entry(file).file {
            open.set_awaited(true);
        }
    }

    pub fn insert(&mut self, name: &str, open: OpenFile) -> FileId {
        let file = FileId(self.next);
        self.next += 1;
        let (identity, is_writable) = (open.identity(), open.is_writable());
        let entry = Entry { name: name.to_owned(), has_name: true, file: None, identity, is_writable, used: 0 };
        self.files.insert(file, entry);
        self.reopened(file, open);
        file
    }

    /// Takes a parked file's new descriptions; nothing if it was closed meanwhile.
    pub fn reopened(&mut self, file: FileId, open: OpenFile) -> Option<Arc<OpenFile>> {
        let open = Arc::new(open);
        self.files.get_mut(&file)?.file = Some(Arc::clone(&open));
        self.touch(file);
        self.park();
        Some(open)
    }

    /// Panics if it was closed, or never opened: that is our bug.
    pub fn close(&mut self, file: FileId) {
        let entry = self.files.remove(&file).unwrap_or_else(|| panic!("{file:?} was closed, or never opened"));
        self.by_use.remove(&entry.used);
        self.hot = self.hot.filter(|hot| *hot != file);
    }

    /// Files in a directory that was renamed move with it; what stood in the new place has no name any more.
    pub fn rename(&mut self, from: &str, to: &str) {
        for entry in self.files.values_mut().filter(|entry| entry.has_name) {
            if entry.name == from {
                entry.name = to.to_owned();
            } else if let Some(last) = entry.name.strip_prefix(from).and_then(|rest| rest.strip_prefix('/')) {
                entry.name = format!("{to}/{last}");
            } else if entry.name == to {
                entry.has_name = false;
            }
        }
    }

    pub fn remove(&mut self, name: &str) {
        self.files.values_mut().filter(|entry| entry.name == name).for_each(|entry| entry.has_name = false);
    }

    /// Files with descriptions.
    #[cfg(test)]
    pub fn open_count(&self) -> usize {
        self.by_use.len()
    }

    fn touch(&mut self, file: FileId) {
        self.uses += 1;
        let uses = self.uses;
        let entry = self.files.get_mut(&file).expect("the caller found it");
        self.by_use.remove(&entry.used);
        entry.used = uses;
        self.by_use.insert(uses, file);
    }

    /// Closes the descriptions of those that were not used for longest, until few enough are open.
    fn park(&mut self) {
        let too_many = self.by_use.len().saturating_sub(self.open_max);
        let idle = self.by_use.iter().filter(|(used, file)| **used != self.uses && self.files[*file].can_be_parked());
        let parked: Vec<(u64, FileId)> = idle.take(too_many).map(|(used, file)| (*used, *file)).collect();
        for (used, file) in parked {
            self.by_use.remove(&used);
            self.files.get_mut(&file).expect("it is in the other map").file = None;
        }
    }
}

impl Entry {
    fn can_be_parked(&self) -> bool {
        let is_idle = |open: &Arc<OpenFile>| Arc::strong_count(open) == 1 && open.is_idle();
        self.has_name && self.name.contains('/') && self.file.as_ref().is_some_and(is_idle)
    }
}
