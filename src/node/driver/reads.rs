//! Reads of the log and questions to the state machine, each as new as was asked for.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Driver, ReadFor};
use crate::codec;
use crate::limits::ENTRY_OVERHEAD_BYTES;
use crate::machine::StateMachine;
use crate::net::{ClientKey, Consistency, READ_BYTES_MAX, Records, Refusal, ResponseBody};
use crate::raft::ReadToken;
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
    /// What `asked` and `ready` hold.
    waiting_bytes: usize,
}

/// What a client asked for.
#[derive(Clone, Debug)]
pub(super) struct Read {
    client: ClientKey,
    id: u64,
    what: What,
    /// Its client is gone; it waits only for the protocol to give its token back.
    is_forgotten: bool,
}

#[derive(Clone, Debug)]
enum What {
    Query(Bytes),
    Records { from: Index, to: Option<Index>, bytes_max: usize },
}

/// A read of records whose entries are being read from the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct RecordsRead {
    client: ClientKey,
    id: u64,
    from: Index,
}

impl Read {
    pub fn query(client: ClientKey, id: u64, query: Bytes) -> Read {
        Read { client, id, what: What::Query(query), is_forgotten: false }
    }

    pub fn records(client: ClientKey, id: u64, from: Index, to: Option<Index>, bytes_max: u32) -> Read {
        let bytes_max = (bytes_max as usize).min(READ_BYTES_MAX);
        Read { client, id, what: What::Records { from, to, bytes_max }, is_forgotten: false }
    }

    fn waiting_bytes(&self) -> usize {
        let query_bytes = match &self.what {
            What::Query(query) => query.len(),
            What::Records { .. } => 0,
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
    pub(super) fn on_read(&mut self, read: Read, consistency: Consistency) {
        if self.reads.waiting_bytes + read.waiting_bytes() > READS_WAITING_BYTES_MAX {
            self.reply(read.client, read.id, ResponseBody::Refused(Refusal::Busy));
            return;
        }
        match consistency {
            Consistency::Stale => self.reads.wait(Index::ZERO, read),
            Consistency::AtLeast(index) => self.reads.wait(index, read),
            Consistency::Linearizable => {
                if let Some(refusal) = self.refusal_while_born() {
                    return self.reply(read.client, read.id, ResponseBody::Refused(refusal));
                }
                self.reads.last_token += 1;
                let token = ReadToken(self.reads.last_token);
                match self.replica.read(token) {
                    Ok(()) => self.reads.ask(token, read),
                    Err(error) => {
                        let refusal = self.refusal_of(error);
                        self.reply(read.client, read.id, ResponseBody::Refused(refusal));
                    }
                }
            }
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
            let Some(read) = self.reads.take_ready(applied) else { return false };
            served += 1;
            bytes += self.serve(read);
        }
        self.reads.ready.first_key_value().is_some_and(|((index, _), _)| *index <= applied)
    }

    /// Nobody waits for this client's answers any more.
    pub(super) fn forget_client(&mut self, client: ClientKey) {
        self.reads.forget(client);
    }

    /// Gives the bytes of the answer, as far as there is one at once.
    fn serve(&mut self, read: Read) -> usize {
        match read.what {
            What::Query(query) => {
                let answer = self.machine.query(&query);
                let bytes = answer.len();
                self.reply(read.client, read.id, ResponseBody::Answer(answer));
                bytes
            }
            What::Records { from, to, bytes_max } => self.serve_records(&read, from, to, bytes_max),
        }
    }

    fn serve_records(&mut self, read: &Read, from: Index, to: Option<Index>, bytes_max: usize) -> usize {
        let (client, id) = (read.client, read.id);
        let from = from.max(Index::FIRST);
        if from < self.replica.first_index() {
            let first = self.replica.first_index();
            self.reply(client, id, ResponseBody::Refused(Refusal::Trimmed { first }));
            return 0;
        }
        let end = self.applied.index.next();
        let end = to.map_or(end, |to| to.min(end)).min(Index(from.0.saturating_add(READ_ENTRIES_MAX)));
        if end <= from {
            let records = Records { next: from, first: self.replica.first_index(), ..self.records_head() };
            self.reply(client, id, ResponseBody::Records(records));
            return 0;
        }
        match self.cached_records(from, end, bytes_max) {
            Some(records) => {
                self.reply(client, id, ResponseBody::Records(records));
                bytes_max
            }
            None if self.log_reads.len() >= LOG_READS_MAX => {
                self.reply(client, id, ResponseBody::Refused(Refusal::Busy));
                0
            }
            None => {
                let purpose = ReadFor::Client(RecordsRead { client, id, from });
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
            Err(_) if read.from < self.replica.first_index() => {
                ResponseBody::Refused(Refusal::Trimmed { first: self.replica.first_index() })
            }
            Err(error) => ResponseBody::Refused(Refusal::Unavailable { reason: error.to_string() }),
        };
        self.reply(read.client, read.id, body);
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
        Records { records: Vec::new(), next: Index::ZERO, first: self.replica.first_index(), commit: self.commit }
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
