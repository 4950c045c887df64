//! What callers gave to be put into the log, and how they are told what became of it.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::time::Instant;

use super::error::Error;
use crate::types::{Index, Service};

/// One command on its way.
#[derive(Clone, Debug)]
pub(super) struct Record {
    /// Which batch waits for it, and where in the batch it stands.
    pub batch: u64,
    pub ordinal: u32,
    pub service: Service,
    pub body: Bytes,
    /// When its caller is told, whatever is known by then.
    pub deadline: Instant,
}

/// Commands that were given together, with the one who waits for them.
#[derive(Debug)]
pub(super) struct Batch {
    pub service: Service,
    pub bodies: Vec<Bytes>,
    pub deadline: Instant,
    pub sender: oneshot::Sender<Outcomes>,
    /// The batch's share of the queue, given back when all its outcomes are known.
    pub room: OwnedSemaphorePermit,
}

/// What became of the records of a batch.
#[derive(Clone, Debug, Default)]
pub struct Outcomes {
    /// The index of each record, in the order in which they were given; [`Index::ZERO`] for one that failed.
    pub indexes: Vec<Index>,
    /// The records that failed: where in the batch, and why. By rising place.
    pub failures: Vec<(usize, Error)>,
    /// What the state machine answered, where one command was given to it.
    pub(super) answer: Bytes,
}

/// Records that were taken into the queue: resolves when the outcome of each is known. Dropping it changes nothing
/// about them.
#[derive(Debug)]
pub struct Appended {
    receiver: oneshot::Receiver<Outcomes>,
    count: usize,
}

/// The batches whose outcomes are not all known.
#[derive(Debug, Default)]
pub(super) struct Batches {
    /// By rising number without a gap; `None` is finished.
    open: VecDeque<Option<Open>>,
    /// The number of the first one.
    first: u64,
}

#[derive(Debug)]
struct Open {
    outcomes: Outcomes,
    missing: usize,
    sender: oneshot::Sender<Outcomes>,
    _room: OwnedSemaphorePermit,
}

impl Outcomes {
    /// All indexes, or why the first one that failed did. Others may have been appended all the same.
    pub fn into_result(mut self) -> Result<Vec<Index>, Error> {
        self.failures.sort_by_key(|(place, _)| *place);
        match self.failures.into_iter().next() {
            None => Ok(self.indexes),
            Some((_, error)) => Err(error),
        }
    }

    /// One result for each record.
    pub fn into_results(self) -> Vec<Result<Index, Error>> {
        let mut results: Vec<Result<Index, Error>> = self.indexes.into_iter().map(Ok).collect();
        for (place, error) in self.failures {
            results[place] = Err(error);
        }
        results
    }
}

impl Appended {
    pub(super) fn new(receiver: oneshot::Receiver<Outcomes>, count: usize) -> Appended {
        Appended { receiver, count }
    }
}

impl Future for Appended {
    type Output = Outcomes;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcomes> {
        let received = ready!(Pin::new(&mut self.receiver).poll(context));
        // Without a sender the client's task has ended with its runtime: what was sent by then nobody knows.
        Poll::Ready(received.unwrap_or_else(|_| Outcomes {
            indexes: vec![Index::ZERO; self.count],
            failures: (0..self.count).map(|place| (place, Error::OutcomeUnknown)).collect(),
            answer: Bytes::new(),
        }))
    }
}

impl Batches {
    /// Takes a batch apart into its records, which go to the end of `into`.
    pub fn open(&mut self, batch: Batch, into: &mut VecDeque<Record>) {
        let number = self.first + self.open.len() as u64;
        let Batch { service, bodies, deadline, sender, room } = batch;
        let indexes = vec![Index::ZERO; bodies.len()];
        let outcomes = Outcomes { indexes, ..Outcomes::default() };
        self.open.push_back(Some(Open { outcomes, missing: bodies.len(), sender, _room: room }));
        into.extend(bodies.into_iter().zip(0..).map(|(body, ordinal)| Record {
            batch: number,
            ordinal,
            service,
            body,
            deadline,
        }));
    }

    pub fn done(&mut self, record: &Record, index: Index, answer: Option<Bytes>) {
        self.settle(record, |place, outcomes| {
            outcomes.indexes[place] = index;
            outcomes.answer = answer.unwrap_or_default();
        });
    }

    pub fn failed(&mut self, record: &Record, error: Error) {
        self.settle(record, |place, outcomes| outcomes.failures.push((place, error)));
    }

    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    fn settle(&mut self, record: &Record, tell: impl FnOnce(usize, &mut Outcomes)) {
        let at = (record.batch - self.first) as usize;
        let open = self.open[at].as_mut().expect("the outcome of a record is told once");
        tell(record.ordinal as usize, &mut open.outcomes);
        open.missing -= 1;
        if open.missing > 0 {
            return;
        }
        let mut open = self.open[at].take().expect("found above");
        open.outcomes.failures.sort_by_key(|(place, _)| *place);
        // Whoever gave the records may not want to know any more.
        let _ = open.sender.send(open.outcomes);
        while let Some(None) = self.open.front() {
            self.open.pop_front();
            self.first += 1;
        }
    }
}
