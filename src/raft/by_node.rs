//! What is kept of each of a few nodes, in one piece and in the order of their ids.
//!
//! A cluster has [`MEMBERS_MAX`](crate::limits::MEMBERS_MAX) members at most: to walk along them costs less than a tree,
//! whose leaves have room for eleven whatever is in them.

use crate::types::NodeId;

/// By rising id, none of them twice.
#[derive(Clone, Hash, Debug)]
pub(super) struct ByNode<V>(Vec<(NodeId, V)>);

impl<V> ByNode<V> {
    pub(super) fn new() -> ByNode<V> {
        ByNode(Vec::new())
    }

    pub(super) fn value(&self, node: &NodeId) -> Option<&V> {
        self.iter().find(|(id, _)| *id == node).map(|(_, value)| value)
    }

    pub(super) fn value_mut(&mut self, node: &NodeId) -> Option<&mut V> {
        self.iter_mut().find(|(id, _)| *id == node).map(|(_, value)| value)
    }

    pub(super) fn contains_key(&self, node: &NodeId) -> bool {
        self.value(node).is_some()
    }

    /// In place of what there was.
    pub(super) fn insert(&mut self, node: NodeId, value: V) {
        let at = self.place(node);
        match self.0.get_mut(at).filter(|(id, _)| *id == node) {
            Some((_, known)) => *known = value,
            None => self.0.insert(at, (node, value)),
        }
    }

    pub(super) fn or_insert_with(&mut self, node: NodeId, value: impl FnOnce() -> V) -> &mut V {
        let at = self.place(node);
        if self.0.get(at).is_none_or(|(id, _)| *id != node) {
            self.0.insert(at, (node, value()));
        }
        &mut self.0[at].1
    }

    pub(super) fn remove(&mut self, node: &NodeId) {
        self.retain(|id, _| id != node);
    }

    pub(super) fn retain(&mut self, mut stays: impl FnMut(&NodeId, &mut V) -> bool) {
        self.0.retain_mut(|(id, value)| stays(id, value));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&NodeId, &V)> {
        self.0.iter().map(|(id, value)| (id, value))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&NodeId, &mut V)> {
        self.0.iter_mut().map(|(id, value)| (&*id, value))
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| value)
    }

    /// Where it stands, or would.
    fn place(&self, node: NodeId) -> usize {
        self.0.iter().take_while(|(id, _)| *id < node).count()
    }
}
