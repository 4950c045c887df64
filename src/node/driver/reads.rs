//! Reads of the log and questions to the state machine, each as new as was asked for.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Driver, ReadFor, Stopped};
use crate::codec;
use crate::limits::ENTRY_OVERHEAD_BYTES;
use crate::machine::StateMachine;
use crate::net::{ClientKey, Consistency, READ_BYTES_MAX, Records, Refusal, ResponseBody};
use crate::raft::{ReadToken, Refused};
use crate::types::{Entry, Index, Payload, Service};
use crate::wal;

/// What may wait at once, each read counted with its query and [`ENTRY_OVERHEAD_BYTES`]: beyond it a client is told
/// that the node is busy.
pub(super) const READS_WAITING_BYTES_MAX: usize = 16 << 20;
/// Reads served, and bytes answered, before the driver looks up again.
pub(super) const READS_SERVED_MAX: usize = 256;
pub(super) const READ_ANSWERS_BYTES: usize = 4 << 20;
/// Reads of the log for clients at once.
pub(super) const LOG_READS_MAX: usize = 64;
/// Entries looked at for one answer.
const READ_ENTRIES_MAX: u64 = 65_536;

/// Reads that wait, for their index or to have it applied.
#[derive(Debug, Default)]
pub(super) struct Reads {
    last_token: u64,
    /// Wait for the protocol to give them an index.
    asked: BTreeMap<ReadToken, Read>,
    /// Wait until the entry at their index is applied.
    ready: BTreeMap<(Index, u64), Read>,
    last_ready: u64,
    /// Answered by lease from a state that was read, and not yet known to be good: until the next reading of the clock. Bounded by what is
    /// served between two.
    held: Vec<(Read, ResponseBody)>,
    /// What `asked` and `ready` hold.
    waiting_bytes: usize,
}

/// What a client asked for.
#[derive(Clone, Debug)]
pub(super) struct Read {
    client: ClientKey,
    id: u64,
    what: What,
    /// Served by lease: the answer waits for a reading of the clock.
    is_leased: bool,
    /// Its client is gone; it waits only for the protocol to give its token back.
    is_forgotten: bool,
}

#[derive(Clone, Debug)]
enum What {
    Query(Bytes),
    Records {
        from: Index,
        to: Option<Index>,
        bytes_max: usize,
    },
    /// That a change was made already when it was asked for.
    Nothing,
}

/// A read of records whose entries are being read from the log.
#[derive(Clone, Debug)]
pub(super) struct RecordsRead {
    read: Read,
    from: Index,
}

impl Read {
    pub fn query(client: ClientKey, id: u64, query: Bytes) -> Read {
        Read { client, id, what: What::Query(query), is_leased: false, is_forgotten: false }
    }

    pub fn records(client: ClientKey, id: u64, from: Index, to: Option<Index>, bytes_max: u32) -> Read {
        let bytes_max = (bytes_max as usize).min(READ_BYTES_MAX);
        Read { client, id, what: What::Records { from, to, bytes_max }, is_leased: false, is_forgotten: false }
    }

    /// Nothing was to be done for a change.
    pub fn of_what_is_so(client: ClientKey, id: u64) -> Read {
        Read { client, id, what: What::Nothing, is_leased: false, is_forgotten: false }
    }

    fn waiting_bytes(&self) -> usize {
        let query_bytes = match &self.what {
            What::Query(query) => query.len(),
            What::Records { .. } | What::Nothing => 0,
        };
        ENTRY_OVERHEAD_BYTES + query_bytes
    }
}

impl Reads {
    /// The protocol says how far the machine must be for this read.
    pub fn confirmed(&mut self, token: ReadToken, index: Index) {
        let read = self.take_asked(token);
        if !read.is_forgotten {
            self.wait(index, read);
        }
    }

    fn ask(&mut self, token: ReadToken, read: Read) {
        self.waiting_bytes += read.waiting_bytes();
        self.asked.insert(token, read);
    }

    fn take_asked(&mut self, token: ReadToken) -> Read {
        let read = self.asked.remove(&token).expect("a read is confirmed or refused once");
        self.waiting_bytes -= read.waiting_bytes();
        read
    }

    fn wait(&mut self, index: Index, read: Read) {
        self.last_ready += 1;
        self.waiting_bytes += read.waiting_bytes();
        self.ready.insert((index, self.last_ready), read);
    }

    /// The next that waits for no entry beyond `applied`.
    fn take_ready(&mut self, applied: Index) -> Option<Read> {
        let first = self.ready.first_entry().filter(|first| first.key().0 <= applied)?;
        let read = first.remove();
        self.waiting_bytes -= read.waiting_bytes();
        Some(read)
    }

    /// What it asked for goes at once; of what the protocol still has, a token stays.
    fn forget(&mut self, client: ClientKey) {
        for read in self.asked.values_mut().filter(|read| read.client == client) {
            self.waiting_bytes -= read.waiting_bytes();
            (read.is_forgotten, read.what) = (true, What::Query(Bytes::new()));
            self.waiting_bytes += read.waiting_bytes();
        }
        self.held.retain(|(read, _)| read.client != client);
        let waiting_bytes = &mut self.waiting_bytes;
        self.ready.retain(|_, read| {
            let stays = read.client != client;
            *waiting_bytes -= if stays { 0 } else { read.waiting_bytes() };
            stays
        });
    }

    #[cfg(test)]
    pub fn waiting(&self) -> (usize, usize) {
        (self.asked.len() + self.ready.len(), self.waiting_bytes)
    }
}

impl<M: StateMachine> Driver<M> {
    pub(super) fn on_read(&mut self, mut read: Read, consistency: Consistency) {
        if self.reads.waiting_bytes + read.waiting_bytes() > READS_WAITING_BYTES_MAX {
            self.reply(read.client, read.id, ResponseBody::Refused(Refusal::Busy));
            return;
        }
        let is_newest = matches!(consistency, Consistency::Linearizable | Consistency::Lease);
        if let Some(refusal) = self.refusal_while_born().filter(|_| is_newest) {
            return self.reply(read.client, read.id, ResponseBody::Refused(refusal));
        }
        match consistency {
            Consistency::Stale => self.reads.wait(Index::ZERO, read),
            Consistency::AtLeast(index) => self.reads.wait(index, read),
            Consistency::Linearizable => self.ask_protocol(read),
            Consistency::Lease => match self.replica.lease_index() {
                Ok(Some(index)) => {
                    read.is_leased = true;
                    self.reads.wait(index, read);
                }
                Ok(None) => self.ask_protocol(read),
                Err(error) => self.refuse_for(&read, error),
            },
        }
    }

    fn ask_protocol(&mut self, read: Read) {
        self.reads.last_token += 1;
        let token = ReadToken(self.reads.last_token);
        match self.replica.read(token) {
            Ok(()) => self.reads.ask(token, read),
            Err(error) => self.refuse_for(&read, error),
        }
    }

    fn refuse_for(&mut self, read: &Read, error: Refused) {
        let refusal = self.refusal_of(error);
        self.reply(read.client, read.id, ResponseBody::Refused(refusal));
    }

    /// The clock was read after the states that these answers were made from: if the lease held until then, nobody else
    /// had anything committed. If not, the others are asked.
    pub(super) fn release_leased(&mut self) {
        if self.reads.held.is_empty() {
            return;
        }
        let holds = self.replica.holds_lease();
        for (read, body) in std::mem::take(&mut self.reads.held) {
            match holds {
                true => self.reply(read.client, read.id, body),
                false => self.ask_protocol(Read { is_leased: false, ..read }),
            }
        }
    }

    fn answer(&mut self, read: Read, body: ResponseBody) {
        match read.is_leased {
            true => self.reads.held.push((read, body)),
            false => self.reply(read.client, read.id, body),
        }
    }

    /// The protocol cannot confirm a read here: the client asks elsewhere, or again.
    pub(super) fn refuse_read(&mut self, token: ReadToken) {
        let read = self.reads.take_asked(token);
        self.refuse(&read);
    }

    fn refuse(&mut self, read: &Read) {
        let leader = self.leader_address();
        self.reply(read.client, read.id, ResponseBody::Refused(Refusal::NotLeader { leader }));
    }

    /// Serves what has been waited for long enough, up to a bound; tells whether there is more.
    pub(super) fn serve_reads(&mut self) -> bool {
        let applied = self.applied.index;
        let (mut served, mut bytes) = (0, 0);
        while served < READS_SERVED_MAX && bytes < READ_ANSWERS_BYTES {
            let Some(read) = self.reads.take_ready(applied) else { break };
            served += 1;
            bytes += self.serve(read);
        }
        !self.reads.held.is_empty()
            || self.reads.ready.first_key_value().is_some_and(|((index, _), _)| *index <= applied)
    }

    /// Nobody waits for this client's answers any more.
    pub(super) fn forget_client(&mut self, client: ClientKey) {
        self.reads.forget(client);
        self.snapshots.forget(client);
        self.forwards.forget(client);
        self.forget_waiting(|asker| matches!(asker, super::Asker::Client { client: of, .. } if of == client));
    }

    /// Gives the bytes of the answer, as far as there is one at once.
    fn serve(&mut self, read: Read) -> usize {
        match &read.what {
            What::Query(_) if self.installing.refusal().is_some() => {
                let refusal = self.installing.refusal().expect("looked at above");
                self.reply(read.client, read.id, ResponseBody::Refused(refusal));
                0
            }
            What::Query(query) => {
                let answer = match self.machine.query(query) {
                    Ok(answer) => answer,
                    Err(error) => {
                        self.stop_on(Err(Stopped::Machine(error)));
                        return 0;
                    }
                };
                let bytes = answer.len();
                self.answer(read, ResponseBody::Answer(answer));
                bytes
            }
            What::Records { from, to, bytes_max } => {
                let (from, to, bytes_max) = (*from, *to, *bytes_max);
                self.serve_records(read, from, to, bytes_max)
            }
            What::Nothing => {
                self.answer(read, ResponseBody::Changed { index: Index::ZERO });
                0
            }
        }
    }

    fn serve_records(&mut self, read: Read, from: Index, to: Option<Index>, bytes_max: usize) -> usize {
        let (client, id) = (read.client, read.id);
        let from = from.max(Index::FIRST);
        if from < self.first_readable() {
            let first = self.first_readable();
            self.reply(client, id, ResponseBody::Refused(Refusal::Trimmed { first }));
            return 0;
        }
        let end = self.applied.index.next();
        let end = to.map_or(end, |to| to.min(end)).min(Index(from.0.saturating_add(READ_ENTRIES_MAX)));
        if end <= from {
            let records = Records { next: from, first: self.first_readable(), ..self.records_head() };
            self.answer(read, ResponseBody::Records(records));
            return 0;
        }
        match self.cached_records(from, end, bytes_max) {
            Some(records) => {
                self.answer(read, ResponseBody::Records(records));
                bytes_max
            }
            None if self.log_reads.len() >= LOG_READS_MAX => {
                self.reply(client, id, ResponseBody::Refused(Refusal::Busy));
                0
            }
            None => {
                let purpose = ReadFor::Client(RecordsRead { read, from });
                self.read_log(from, end, bytes_max, purpose);
                bytes_max
            }
        }
    }

    pub(super) fn on_records_read(&mut self, read: RecordsRead, result: Result<Vec<Entry>, wal::Error>) {
        let body = match result {
            // An answer without progress would be asked for again at once.
            Ok(entries) if entries.is_empty() => ResponseBody::Refused(self.missing(read.from)),
            Ok(entries) => {
                let mut collected = self.records_from(read.from);
                entries.iter().for_each(|entry| take_record(&mut collected, entry));
                ResponseBody::Records(collected)
            }
            Err(_) if read.from < self.first_readable() => {
                ResponseBody::Refused(Refusal::Trimmed { first: self.first_readable() })
            }
            Err(error) => ResponseBody::Refused(Refusal::Unavailable { reason: error.to_string() }),
        };
        self.answer(read.read, body);
    }

    /// What a client is told that asked for an entry which was to be in the log and is not.
    pub(super) fn missing(&self, index: Index) -> Refusal {
        let first = self.first_readable();
        match index < first {
            true => Refusal::Trimmed { first },
            false => Refusal::Unavailable { reason: format!("entry {index} is not in this node's log") },
        }
    }

    /// The records of `from..end` if memory has the entries, as many as fit `bytes_max`.
    pub(super) fn cached_records(&self, from: Index, end: Index, bytes_max: usize) -> Option<Records> {
        let entries = self.replica.cached(from..end)?;
        let mut records = self.records_from(from);
        let mut bytes = 0;
        for entry in entries {
            if bytes >= bytes_max {
                break;
            }
            bytes += entry.payload.data_bytes() + ENTRY_OVERHEAD_BYTES;
            take_record(&mut records, entry);
        }
        Some(records)
    }

    pub(super) fn records_from(&self, from: Index) -> Records {
        Records { next: from, ..self.records_head() }
    }

    fn records_head(&self) -> Records {
        Records { records: Vec::new(), next: Index::ZERO, first: self.first_readable(), commit: self.commit }
    }
}

/// Adds an entry's record, if it is one, and moves on behind it.
pub(super) fn take_record(records: &mut Records, entry: &Entry) {
    records.next = entry.id.index.next();
    let Payload::Data(data) = &entry.payload else { return };
    if let Ok((command, body)) = codec::decode_command(&data.bytes)
        && command.service == Service::Append
    {
        records.records.push((entry.id.index, body));
    }
}
