//! Names: the directory tree as programs see it, as it is on the disk, and the changes between the two.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// A file or a directory, whatever it is called. Never used again.
pub(super) type NodeId = u64;

const ROOT: NodeId = 0;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Node {
    File(NodeId),
    Directory(NodeId),
}

type Names = BTreeMap<NodeId, BTreeMap<String, Node>>;

#[derive(Clone, Debug)]
pub(super) struct Tree {
    current: Names,
    durable: Names,
    /// Oldest first. Each is on the disk as a whole or not at all.
    pending: Vec<Change>,
    next: NodeId,
}

/// What one call did.
#[derive(Clone, Debug)]
struct Change {
    /// As the test may want to see it.
    label: String,
    /// In a directory, a name stands for this from now on, or for nothing.
    edits: Vec<(NodeId, String, Option<Node>)>,
}

impl Default for Tree {
    fn default() -> Tree {
        let names = Names::from([(ROOT, BTreeMap::new())]);
        Tree { current: names.clone(), durable: names, pending: Vec::new(), next: ROOT + 1 }
    }
}

impl Tree {
    pub fn list(&self, directory: &str) -> io::Result<Vec<String>> {
        Ok(self.current[&self.directory(directory)?].keys().cloned().collect())
    }

    pub fn file(&self, name: &str) -> io::Result<NodeId> {
        match self.node(name)? {
            Node::File(file) => Ok(file),
            Node::Directory(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    pub fn create_file(&mut self, name: &str) -> io::Result<NodeId> {
        let (directory, last) = self.place(name)?;
        if self.current[&directory].contains_key(last) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = self.fresh();
        self.change(format!("create {name}"), vec![(directory, last.to_owned(), Some(Node::File(file)))]);
        Ok(file)
    }

    /// Makes a directory, if there is none. False if there was.
    pub fn create_directory(&mut self, name: &str) -> io::Result<bool> {
        let (parent, last) = self.place(name)?;
        match self.current[&parent].get(last) {
            Some(Node::Directory(_)) => return Ok(false),
            Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
            None => {}
        }
        let directory = self.fresh();
        self.change(format!("create {name}"), vec![(parent, last.to_owned(), Some(Node::Directory(directory)))]);
        Ok(true)
    }

    pub fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let node = self.node(from)?;
        let (from_directory, from_last) = self.place(from)?;
        let (to_directory, to_last) = self.place(to)?;
        match (node, self.current[&to_directory].get(to_last)) {
            (moved, Some(target)) if moved == *target => return Ok(()),
            (Node::File(_), Some(Node::Directory(_))) => return Err(io::ErrorKind::IsADirectory.into()),
            (Node::Directory(_), Some(Node::File(_))) => return Err(io::ErrorKind::NotADirectory.into()),
            (_, Some(Node::Directory(target))) if !self.current[target].is_empty() => {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            (Node::Directory(moved), _) if moved == to_directory => return Err(io::ErrorKind::InvalidInput.into()),
            _ => {}
        }
        let edits = vec![(from_directory, from_last.to_owned(), None), (to_directory, to_last.to_owned(), Some(node))];
        self.change(format!("rename {from} {to}"), edits);
        Ok(())
    }

    pub fn remove(&mut self, name: &str) -> io::Result<()> {
        if let Node::Directory(directory) = self.node(name)?
            && !self.current[&directory].is_empty()
        {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let (directory, last) = self.place(name)?;
        self.change(format!("remove {name}"), vec![(directory, last.to_owned(), None)]);
        Ok(())
    }

    /// The changes in a directory are durable, and with them what they stand on: a rename out of another directory
    /// takes that one's changes along, as a journal does.
    pub fn sync(&mut self, directory: &str) -> io::Result<()> {
        let mut covered = BTreeSet::from([self.directory(directory)?]);
        for change in self.pending.iter().rev() {
            if change.touches(&covered) {
                covered.extend(change.edits.iter().map(|(directory, ..)| *directory));
            }
        }
        for change in std::mem::take(&mut self.pending) {
            match change.touches(&covered) {
                true => change.apply(&mut self.durable),
                false => self.pending.push(change),
            }
        }
        Ok(())
    }

    /// Power is cut: `keep` says of each pending change, oldest first, whether it is on the disk.
    pub fn crash(&mut self, mut keep: impl FnMut(&str) -> bool) {
        for change in std::mem::take(&mut self.pending) {
            if keep(&change.label) {
                change.apply(&mut self.durable);
            }
        }
        self.current = self.durable.clone();
    }

    /// All files that have a name now, or would have one after a cut.
    pub fn reachable(&self) -> BTreeSet<NodeId> {
        let named = self.current.values().chain(self.durable.values()).flat_map(BTreeMap::values).copied();
        let pending = self.pending.iter().flat_map(|change| &change.edits).filter_map(|(.., node)| *node);
        named
            .chain(pending)
            .map(|node| match node {
                Node::File(id) | Node::Directory(id) => id,
            })
            .collect()
    }

    /// The name of a file, or what it is if it has none any more.
    pub fn name_of(&self, file: NodeId) -> String {
        self.path_of(Node::File(file)).unwrap_or_else(|| format!("(nameless {file})"))
    }

    fn path_of(&self, wanted: Node) -> Option<String> {
        self.current.iter().find_map(|(directory, names)| {
            let (name, _) = names.iter().find(|(_, node)| **node == wanted)?;
            match *directory {
                ROOT => Some(name.clone()),
                other => Some(format!("{}/{name}", self.path_of(Node::Directory(other))?)),
            }
        })
    }

    fn node(&self, name: &str) -> io::Result<Node> {
        let (directory, last) = self.place(name)?;
        self.current[&directory].get(last).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The directory that a name lies in, and its last part.
    fn place<'a>(&self, name: &'a str) -> io::Result<(NodeId, &'a str)> {
        match name.split_once('/') {
            None => Ok((ROOT, name)),
            Some((directory, last)) => Ok((self.directory(directory)?, last)),
        }
    }

    fn directory(&self, name: &str) -> io::Result<NodeId> {
        if name.is_empty() {
            return Ok(ROOT);
        }
        match self.node(name)? {
            Node::Directory(directory) => Ok(directory),
            Node::File(_) => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn fresh(&mut self) -> NodeId {
        self.next += 1;
        self.next - 1
    }

    fn change(&mut self, label: String, edits: Vec<(NodeId, String, Option<Node>)>) {
        let change = Change { label, edits };
        change.clone().apply(&mut self.current);
        self.pending.push(change);
    }
}

impl Change {
    fn touches(&self, directories: &BTreeSet<NodeId>) -> bool {
        self.edits.iter().any(|(directory, ..)| directories.contains(directory))
    }

    fn apply(self, names: &mut Names) {
        for (directory, name, node) in self.edits {
            if let Some(Node::Directory(made)) = node {
                names.entry(made).or_default();
            }
            // A directory whose own making was lost may stand here without a name: nobody will find it.
            let entries = names.entry(directory).or_default();
            match node {
                Some(node) => entries.insert(name, node),
                None => entries.remove(&name),
            };
        }
    }
}
