//! Rot: what happens to bytes that were safely on the disk.
//!
//! All of it is durable at once, changes no file's length unless it says so, counts as no operation, and panics where
//! there is no such file or range: a test that damages nothing tests nothing.

use std::ops::Range;
use std::rc::Rc;

use super::SimDisk;
use super::content::Content;
use crate::random::Random;

impl SimDisk {
    /// All bytes of a file, as readers see them, also where they could not.
    pub fn contents(&self, name: &str) -> Vec<u8> {
        self.with(name, |content| {
            let mut copy = content.clone();
            copy.make_readable();
            let mut bytes = vec![0; copy.length() as usize];
            copy.read(0, &mut bytes).expect("the range is the file's, and readable");
            bytes
        })
    }

    /// Puts a file there, durably, or in place of the one that is there.
    pub fn plant(&self, name: &str, bytes: &[u8]) {
        let mut state = self.state.borrow_mut();
        let node = match state.tree.file(name) {
            Ok(node) => node,
            Err(_) => state.tree.create_file(name).unwrap_or_else(|error| panic!("cannot plant {name}: {error}")),
        };
        state.tree.sync(name.split_once('/').map_or("", |(parent, _)| parent)).expect("it was just found");
        let mut content = Content::default();
        content.settle(0, bytes);
        state.contents.insert(node, Rc::new(content));
    }

    /// Flips one bit of a byte.
    pub fn flip_bit(&self, name: &str, offset: u64, bit: u32) {
        self.rewrite(name, offset..offset + 1, |bytes| bytes[0] ^= 1 << bit);
    }

    /// Zeros.
    pub fn zero(&self, name: &str, range: Range<u64>) {
        self.fill(name, range, 0);
    }

    /// One byte, over and over.
    pub fn fill(&self, name: &str, range: Range<u64>, byte: u8) {
        self.rewrite(name, range, |bytes| bytes.fill(byte));
    }

    /// Noise.
    pub fn junk(&self, name: &str, range: Range<u64>, random: &mut Random) {
        self.rewrite(name, range, |bytes| random.fill(bytes));
    }

    /// Puts these bytes there: a stale block that the test kept, or a forged one.
    pub fn overwrite(&self, name: &str, offset: u64, bytes: &[u8]) {
        self.rewrite(name, offset..offset + bytes.len() as u64, |old| old.copy_from_slice(bytes));
    }

    /// What was meant for one place stands in another as well: a misdirected write.
    pub fn copy_block(&self, from: &str, from_range: Range<u64>, to: &str, to_offset: u64) {
        let bytes = self.contents(from);
        self.overwrite(to, to_offset, &bytes[from_range.start as usize..from_range.end as usize]);
    }

    /// Cuts a file, or lets it grow by zeros.
    pub fn truncate(&self, name: &str, length: u64) {
        self.with(name, |content| content.truncate(length));
    }

    /// Reads that touch these sectors fail with EIO, until they are written again.
    pub fn make_unreadable(&self, name: &str, range: Range<u64>) {
        self.with(name, |content| content.make_unreadable(range));
    }

    /// All of a file can be read again.
    pub fn make_readable(&self, name: &str) {
        self.with(name, Content::make_readable);
    }

    /// Renames a file behind the back of whoever uses it, durably.
    pub fn misplace(&self, from: &str, to: &str) {
        let mut state = self.state.borrow_mut();
        state.tree.rename(from, to).unwrap_or_else(|error| panic!("cannot rename {from} to {to}: {error}"));
        state.tree.sync(from.split_once('/').map_or("", |(parent, _)| parent)).expect("it was just found");
        state.collect();
    }

    /// Removes a file behind the back of whoever uses it, durably.
    pub fn lose(&self, name: &str) {
        let mut state = self.state.borrow_mut();
        state.tree.remove(name).unwrap_or_else(|error| panic!("cannot remove {name}: {error}"));
        state.tree.sync(name.split_once('/').map_or("", |(parent, _)| parent)).expect("it was just found");
        state.collect();
    }

    fn rewrite(&self, name: &str, range: Range<u64>, change: impl FnOnce(&mut [u8])) {
        self.with(name, |content| {
            assert!(range.end <= content.length(), "{name} ends before {}", range.end);
            let mut readable = content.clone();
            readable.make_readable();
            let mut bytes = vec![0; (range.end - range.start) as usize];
            readable.read(range.start, &mut bytes).expect("the range is the file's, and readable");
            change(&mut bytes);
            content.settle(range.start, &bytes);
        });
    }

    fn with<T>(&self, name: &str, call: impl FnOnce(&mut Content) -> T) -> T {
        let mut state = self.state.borrow_mut();
        let node = state.tree.file(name).unwrap_or_else(|error| panic!("no file {name}: {error}"));
        call(state.content_mut(node))
    }
}
