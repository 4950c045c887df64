//! Counters by name, in a file of redb: with each commit what the node keeps with them.

use std::path::Path;

use bytes::Bytes;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use trilith::checksum::Checksum;
use trilith::machine::{Commit, Durable, Error, Recovered, StateMachine};
use trilith::types::{Index, LogId, Term};

const COUNTERS: TableDefinition<&[u8], u64> = TableDefinition::new("counters");
/// What belongs to the node: sessions and their answers, and one record of its own.
const KEPT: TableDefinition<u64, &[u8]> = TableDefinition::new("kept");
/// Index and term of the last entry that is in the counters.
const APPLIED: TableDefinition<(), (u64, u64)> = TableDefinition::new("applied");

pub struct Counters {
    database: Database,
    /// What was applied since the last commit.
    open: Option<WriteTransaction>,
    /// Commands that this process has run.
    runs: u64,
}

impl Counters {
    pub fn open(file: &Path) -> Result<Counters, redb::Error> {
        let database = Database::create(file)?;
        let tables = database.begin_write()?;
        drop((tables.open_table(COUNTERS)?, tables.open_table(KEPT)?, tables.open_table(APPLIED)?));
        tables.commit()?;
        Ok(Counters { database, open: None, runs: 0 })
    }

    fn add(&mut self, name: &[u8]) -> Result<u64, redb::Error> {
        let open = match self.open.take() {
            Some(open) => open,
            None => self.database.begin_write()?,
        };
        let count = {
            let mut counters = open.open_table(COUNTERS)?;
            let count = counters.get(name)?.map_or(0, |count| count.value()) + 1;
            counters.insert(name, count)?;
            count
        };
        (self.open, self.runs) = (Some(open), self.runs + 1);
        Ok(count)
    }

    /// What was applied and not committed is part of it.
    fn count(&self, name: &[u8]) -> Result<u64, redb::Error> {
        let count = match &self.open {
            Some(open) => open.open_table(COUNTERS)?.get(name)?.map(|count| count.value()),
            None => self.database.begin_read()?.open_table(COUNTERS)?.get(name)?.map(|count| count.value()),
        };
        Ok(count.unwrap_or(0))
    }

    fn keep(&mut self, commit: Commit<'_>) -> Result<(), redb::Error> {
        let open = match self.open.take() {
            Some(open) => open,
            None => self.database.begin_write()?,
        };
        {
            let mut kept = open.open_table(KEPT)?;
            for (key, value) in commit.kept {
                match value {
                    Some(value) => drop(kept.insert(key, &value[..])?),
                    None => drop(kept.remove(key)?),
                }
            }
            open.open_table(APPLIED)?.insert((), (commit.applied.index.0, commit.applied.term.0))?;
        }
        Ok(open.commit()?)
    }

    fn found(&self) -> Result<Option<Recovered>, redb::Error> {
        let read = self.database.begin_read()?;
        let Some(applied) = read.open_table(APPLIED)?.get(())? else { return Ok(None) };
        let (index, term) = applied.value();
        let mut kept = Vec::new();
        for pair in read.open_table(KEPT)?.iter()? {
            let (key, value) = pair?;
            kept.push((key.value(), Bytes::copy_from_slice(value.value())));
        }
        Ok(Some(Recovered { applied: LogId::new(Term(term), Index(index)), kept }))
    }

    fn digest_of_all(&self) -> Result<Checksum, redb::Error> {
        let read = self.database.begin_read()?;
        let mut digest = Checksum::default();
        for pair in read.open_table(COUNTERS)?.iter()? {
            let (name, count) = pair?;
            digest = Checksum::salted(u64::from(digest.0), &[&count.value().to_le_bytes(), name.value()]);
        }
        Ok(digest)
    }
}

/// A command is the name of a counter, which goes up by one; the answer is what it shows then.
impl StateMachine for Counters {
    fn apply(&mut self, _: LogId, command: &[u8]) -> Result<Bytes, Error> {
        let count = self.add(command).map_err(Error::failed)?;
        Ok(count.to_string().into())
    }

    /// The counter of this name; or, without a name, how many commands this process has run.
    fn query(&self, query: &[u8]) -> Result<Bytes, Error> {
        let count = if query.is_empty() { self.runs } else { self.count(query).map_err(Error::failed)? };
        Ok(count.to_string().into())
    }

    fn durable(&mut self) -> Option<&mut dyn Durable> {
        Some(self)
    }

    fn digest(&self) -> Checksum {
        self.digest_of_all().expect("the database can be read")
    }
}

impl Durable for Counters {
    fn recovered(&mut self) -> Result<Option<Recovered>, Error> {
        self.found().map_err(Error::failed)
    }

    fn commit(&mut self, commit: Commit<'_>) -> Result<(), Error> {
        self.keep(commit).map_err(Error::failed)
    }
}
