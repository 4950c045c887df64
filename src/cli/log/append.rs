//! `trilith log append`: many records in flight, their indexes in the order of the input.

use std::io::IsTerminal;
use std::path::PathBuf;

use bytes::Bytes;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;

use super::input::{Framing, Input, place};
use super::print::Lines;
use crate::cli::access::{self, WriteArguments};
use crate::cli::exit::{Exit, Failure};
use crate::client::{Appended, Client, Error, Outcomes};

/// Batches between input, client and output; the client's own queue bounds the bytes in flight.
const BATCHES_READ_AHEAD: usize = 16;
const BATCHES_IN_FLIGHT: usize = 4096;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The records, one to a line; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Each record stands after its length (u32, little-endian) instead of in a line
    #[arg(long)]
    framed: bool,
    #[command(flatten)]
    client: WriteArguments,
}

/// A batch on its way, with what it takes of the input.
struct Sent {
    appended: Appended,
    input_bytes: u64,
}

/// What became of the records so far.
struct Tally {
    name: String,
    framing: Framing,
    /// Records whose outcome is known, in order.
    told: u64,
    /// The first one that failed, and why.
    failed: Option<(u64, Error)>,
    /// Records behind the first failure that are in the log, or may be.
    behind: u64,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let framing = if arguments.framed { Framing::Lengths } else { Framing::Lines };
    let input = Input::open(&arguments.file, framing)?;
    let progress = progress(input.bytes);
    let name = match arguments.file.to_str() {
        Some("-") => "standard input".to_owned(),
        _ => arguments.file.display().to_string(),
    };
    let tally = Tally { name, framing, told: 0, failed: None, behind: 0 };
    access::block_on(async {
        let client = arguments.client.connect_in_order().await?;
        let (read, batches) = mpsc::channel(BATCHES_READ_AHEAD);
        std::thread::spawn(move || read_all(input, &read));
        let (sent, outcomes) = mpsc::channel(BATCHES_IN_FLIGHT);
        let (fed, printed) = tokio::join!(feed(&client, batches, sent), print(outcomes, tally, &progress));
        progress.finish_and_clear();
        // What the records met says more than why no more were taken.
        printed.and(fed)
    })
}

/// Reads until the end, or until nobody takes more.
fn read_all(mut input: Input, batches: &mpsc::Sender<Result<Vec<Bytes>, Failure>>) {
    loop {
        let mut batch = Vec::new();
        let read = input.next_batch(&mut batch);
        let is_end = batch.is_empty() || read.is_err();
        if !batch.is_empty() && batches.blocking_send(Ok(batch)).is_err() {
            return;
        }
        if let Err(failure) = read {
            // If nobody takes it, another failure was first.
            let _ = batches.blocking_send(Err(failure));
        }
        if is_end {
            return;
        }
    }
}

/// Hands records to the client as long as it takes them and their outcomes are good.
async fn feed(
    client: &Client,
    mut batches: mpsc::Receiver<Result<Vec<Bytes>, Failure>>,
    sent: mpsc::Sender<Sent>,
) -> Result<(), Failure> {
    while let Some(batch) = batches.recv().await {
        let batch = batch?;
        let input_bytes = batch.iter().map(|record| record.len() as u64 + 1).sum();
        let appended = client.enqueue(batch).await.map_err(access::failure)?;
        if sent.send(Sent { appended, input_bytes }).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Prints indexes as they become known. After a failure no more records are taken, and what is under way is awaited.
async fn print(mut sent: mpsc::Receiver<Sent>, mut tally: Tally, progress: &ProgressBar) -> Result<(), Failure> {
    let mut lines = Lines::stdout();
    while let Some(Sent { appended, input_bytes }) = sent.recv().await {
        let outcomes = appended.await;
        let good = tally.count(&outcomes);
        lines.indexes(&outcomes.indexes[..good])?;
        progress.inc(input_bytes);
        if tally.failed.is_some() {
            sent.close();
        }
    }
    tally.end()
}

impl Tally {
    /// Takes the next outcomes; tells how many of them come before any failure.
    fn count(&mut self, outcomes: &Outcomes) -> usize {
        let count = outcomes.indexes.len();
        let (good, rest) = match (&self.failed, outcomes.failures.first()) {
            (Some(_), _) => (0, 0..count),
            (None, None) => (count, count..count),
            (None, Some((at, error))) => {
                self.failed = Some((self.told + *at as u64 + 1, error.clone()));
                (*at, at + 1..count)
            }
        };
        self.behind += rest.filter(|place| !is_certain_failure(outcomes, *place)).count() as u64;
        self.told += count as u64;
        good
    }

    fn end(self) -> Result<(), Failure> {
        let Some((number, error)) = self.failed else { return Ok(()) };
        let place = place(&self.name, self.framing, number);
        let is_unknown = matches!(error, Error::OutcomeUnknown);
        let failure = access::failure(error);
        let message = format!("{place}: {}", failure.message);
        if is_unknown {
            let next_step = format!("read the log before you append again from {place} on");
            return Err(Failure::new(failure.exit, message, next_step));
        }
        if self.behind > 0 {
            let message = format!("{message}; it is not in the log, but {} behind it are, or may be", self.behind);
            return Err(Failure::new(Exit::OutcomeUnknown, message, "read the log before you append again"));
        }
        let next_step =
            format!("{}; everything before {place} is in the log, nothing from there on", failure.next_step);
        Err(Failure::new(failure.exit, message, next_step))
    }
}

/// Whether a record is certainly not in the log.
fn is_certain_failure(outcomes: &Outcomes, place: usize) -> bool {
    match outcomes.failures.binary_search_by_key(&place, |(place, _)| *place) {
        Ok(at) => !matches!(outcomes.failures[at].1, Error::OutcomeUnknown),
        Err(_) => false,
    }
}

/// A bar where a person looks on and the output goes elsewhere.
fn progress(bytes: Option<u64>) -> ProgressBar {
    let Some(bytes) = bytes.filter(|_| std::io::stderr().is_terminal() && !std::io::stdout().is_terminal()) else {
        return ProgressBar::hidden();
    };
    let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    ProgressBar::new(bytes).with_style(style.expect("the template is well-formed"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Index;

    fn tally() -> Tally {
        Tally { name: "in".into(), framing: Framing::Lines, told: 0, failed: None, behind: 0 }
    }

    fn outcomes(count: usize, failures: Vec<(usize, Error)>) -> Outcomes {
        let mut outcomes = Outcomes::default();
        outcomes.indexes = vec![Index(1); count];
        outcomes.failures = failures;
        outcomes
    }

    #[test]
    fn what_comes_before_the_first_failure_is_printed_and_the_failure_names_its_line() {
        let mut tally = tally();
        assert_eq!(tally.count(&outcomes(3, vec![])), 3);
        let full = |at| (at, Error::NoSpace);
        assert_eq!(tally.count(&outcomes(3, vec![full(1), full(2)])), 1);
        assert_eq!(tally.count(&outcomes(2, vec![full(0), full(1)])), 0);
        let failure = tally.end().unwrap_err();
        assert_eq!(failure.exit, Exit::NoSpace);
        assert!(failure.message.starts_with("in:5: "), "{failure}");
    }

    #[test]
    fn a_failure_with_records_behind_it_that_may_stand_is_an_unknown_outcome() {
        for behind in [vec![], vec![(0, Error::OutcomeUnknown)]] {
            let mut tally = tally();
            tally.count(&outcomes(1, vec![(0, Error::Busy)]));
            tally.count(&outcomes(1, behind));
            assert_eq!(tally.end().unwrap_err().exit, Exit::OutcomeUnknown);
        }
        let mut tally = tally();
        tally.count(&outcomes(2, vec![(1, Error::OutcomeUnknown)]));
        let failure = tally.end().unwrap_err();
        assert_eq!((failure.exit, failure.message.starts_with("in:2: ")), (Exit::OutcomeUnknown, true));
    }
}
