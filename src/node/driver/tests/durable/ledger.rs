//! A state machine that keeps its own state: what its disk holds, transaction by transaction.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::{BufMut, Bytes, BytesMut};

use crate::checksum::Checksum;
use crate::codec;
use crate::machine::{Commit, Durable, Error, Recovered, Restoring, Snapshot, StateMachine};
use crate::types::LogId;

/// How often each command was run: one that is run twice shows.
#[derive(Debug)]
pub struct Ledger {
    rows: BTreeMap<Bytes, u64>,
    store: Store,
    gives_snapshots: bool,
}

/// What outlives a [`Ledger`].
#[derive(Clone, Default, Debug)]
pub struct Store(Arc<Mutex<Stored>>);

#[derive(Clone, Default, Debug)]
struct Stored {
    /// A crash leaves the first so many.
    transactions: Vec<Transaction>,
    /// Commands that were run.
    runs: u64,
    failing: Option<Failing>,
    /// It is not asked for anything any more.
    has_failed: bool,
}

#[derive(Clone, Default, Debug)]
pub struct Transaction {
    pub applied: LogId,
    pub rows: BTreeMap<Bytes, u64>,
    pub kept: BTreeMap<u64, Bytes>,
}

/// What the store does not do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failing {
    Apply,
    Query,
    Commit,
    Recover,
}

impl Store {
    /// What a crash leaves that comes when so many transactions are durable.
    pub fn cut(&self, transactions: usize) -> Store {
        let stored = self.0.lock().unwrap();
        let transactions = stored.transactions[..transactions].to_vec();
        Store(Arc::new(Mutex::new(Stored { transactions, ..Stored::default() })))
    }

    pub fn whole(&self) -> Store {
        self.cut(self.transactions())
    }

    pub fn of(transaction: Transaction) -> Store {
        Store(Arc::new(Mutex::new(Stored { transactions: vec![transaction], ..Stored::default() })))
    }

    pub fn transactions(&self) -> usize {
        self.0.lock().unwrap().transactions.len()
    }

    pub fn last(&self) -> Transaction {
        self.0.lock().unwrap().transactions.last().cloned().unwrap_or_default()
    }

    pub fn runs(&self) -> u64 {
        self.0.lock().unwrap().runs
    }

    pub fn fail(&self, failing: Failing) {
        self.0.lock().unwrap().failing = Some(failing);
    }

    fn check(&self, failing: Failing) -> Result<(), Error> {
        let mut stored = self.0.lock().unwrap();
        assert!(!stored.has_failed, "{failing:?} behind an error");
        stored.has_failed = stored.failing == Some(failing);
        if stored.has_failed { Err(Error::failed(format!("{failing:?} failed"))) } else { Ok(()) }
    }
}

impl Ledger {
    pub fn on(store: &Store) -> Ledger {
        Ledger { rows: BTreeMap::new(), store: store.clone(), gives_snapshots: false }
    }

    pub fn with_snapshots(store: &Store) -> Ledger {
        Ledger { gives_snapshots: true, ..Ledger::on(store) }
    }
}

impl StateMachine for Ledger {
    fn apply(&mut self, _: LogId, command: &[u8]) -> Result<Bytes, Error> {
        self.store.check(Failing::Apply)?;
        self.store.0.lock().unwrap().runs += 1;
        let count = self.rows.entry(Bytes::copy_from_slice(command)).or_default();
        *count += 1;
        Ok(Bytes::copy_from_slice(&count.to_le_bytes()))
    }

    fn query(&self, query: &[u8]) -> Result<Bytes, Error> {
        self.store.check(Failing::Query)?;
        Ok(Bytes::copy_from_slice(&self.rows.get(query).copied().unwrap_or_default().to_le_bytes()))
    }

    fn durable(&mut self) -> Option<&mut dyn Durable> {
        Some(self)
    }

    fn digest(&self) -> Checksum {
        Checksum::of(&encoded(&self.rows))
    }

    fn snapshot(&self) -> Option<Box<dyn Snapshot>> {
        self.gives_snapshots.then(|| Box::new(Whole(Some(encoded(&self.rows)))) as Box<dyn Snapshot>)
    }

    fn restoring(&self) -> Option<Box<dyn Restoring<Ledger>>> {
        let empty = Beside { store: self.store.clone(), bytes: Vec::new() };
        self.gives_snapshots.then(|| Box::new(empty) as Box<dyn Restoring<Ledger>>)
    }
}

impl Durable for Ledger {
    fn recovered(&mut self) -> Result<Option<Recovered>, Error> {
        self.store.check(Failing::Recover)?;
        let stored = self.store.0.lock().unwrap();
        let Some(Transaction { applied, rows, kept }) = stored.transactions.last().cloned() else { return Ok(None) };
        self.rows = rows;
        Ok(Some(Recovered { applied, kept: kept.into_iter().rev().collect() }))
    }

    fn commit(&mut self, commit: Commit<'_>) -> Result<(), Error> {
        self.store.check(Failing::Commit)?;
        let mut next = if commit.replaces { Transaction::default() } else { self.store.last() };
        assert!(commit.replaces || next.applied <= commit.applied, "{} behind {}", commit.applied, next.applied);
        (next.applied, next.rows) = (commit.applied, self.rows.clone());
        for (key, value) in commit.kept {
            match value {
                Some(value) => drop(next.kept.insert(key, value)),
                None => drop(next.kept.remove(&key)),
            }
        }
        self.store.0.lock().unwrap().transactions.push(next);
        Ok(())
    }
}

#[derive(Debug)]
struct Whole(Option<Vec<u8>>);

impl Snapshot for Whole {
    fn encode_next(&mut self, out: &mut BytesMut) -> bool {
        self.0.take().is_some_and(|bytes| {
            out.put_slice(&bytes);
            true
        })
    }
}

#[derive(Debug)]
struct Beside {
    store: Store,
    bytes: Vec<u8>,
}

impl Restoring<Ledger> for Beside {
    fn add(&mut self, bytes: &[u8]) -> Result<(), codec::Error> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Ledger, codec::Error> {
        let mut reader = codec::Reader::new(&self.bytes);
        let mut rows = BTreeMap::new();
        while reader.remaining() > 0 {
            let count = reader.u64("count")?;
            let length = reader.u32("length")? as usize;
            rows.insert(Bytes::copy_from_slice(reader.take(length, "row")?), count);
        }
        Ok(Ledger { rows, store: self.store.clone(), gives_snapshots: true })
    }
}

fn encoded(rows: &BTreeMap<Bytes, u64>) -> Vec<u8> {
    let mut out = Vec::new();
    for (row, count) in rows {
        out.put_u64_le(*count);
        out.put_u32_le(row.len() as u32);
        out.put_slice(row);
    }
    out
}
