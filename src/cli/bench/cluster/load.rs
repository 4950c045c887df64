//! The closed loop: so many batches in flight for each client, each followed by the next when it is acknowledged.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::access;
use crate::cli::configuration::ClientConfiguration;
use crate::cli::exit::{Exit, Failure};
use crate::client::Client;
use crate::net::NodeStatus;

/// A client waits this long for an acknowledgement before the bench gives up.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What is asked of the cluster.
#[derive(Clone, Debug)]
pub struct Load {
    pub bytes: usize,
    pub clients: usize,
    pub in_flight: usize,
    /// Records that are enqueued together and waited for together.
    pub batch: usize,
    /// Runs before anything is counted.
    pub warm_up: Duration,
    pub time: Duration,
}

/// What came of it.
#[derive(Debug)]
pub struct Measured {
    pub time: Duration,
    pub records: u64,
    /// In nanoseconds, of batches.
    pub latency: Histogram<u64>,
    /// Each node before and after, if it answered.
    pub nodes: Vec<(Option<NodeStatus>, Option<NodeStatus>)>,
}

#[derive(Debug)]
struct Counted {
    records: u64,
    latency: Histogram<u64>,
    is_counting: bool,
    failure: Option<Failure>,
}

impl Load {
    pub async fn run(&self, configuration: &ClientConfiguration) -> Result<Measured, Failure> {
        let mut clients = Vec::new();
        for _ in 0..self.clients {
            clients.push(access::connect(configuration, TIMEOUT).await?);
        }
        let counted = Rc::new(RefCell::new(Counted {
            records: 0,
            latency: Histogram::new_with_bounds(1, TIMEOUT.as_nanos() as u64, 3).map_err(|error| {
                Failure::new(Exit::Other, format!("no histogram: {error}"), "report this: it cannot happen")
            })?,
            is_counting: false,
            failure: None,
        }));
        let end = Instant::now() + self.warm_up + self.time;
        let local = tokio::task::LocalSet::new();
        self.spawn_lanes(&local, &clients, &counted, end);
        let watched = local.run_until(self.watch(&clients[0], &counted)).await;
        local.await;
        let mut counted = Rc::into_inner(counted).expect("all lanes have ended").into_inner();
        if let Some(failure) = counted.failure.take() {
            return Err(failure);
        }
        let (time, records, nodes) = watched;
        Ok(Measured { time, records, latency: counted.latency, nodes })
    }

    fn spawn_lanes(
        &self,
        local: &tokio::task::LocalSet,
        clients: &[Client],
        counted: &Rc<RefCell<Counted>>,
        end: Instant,
    ) {
        let record = Bytes::from(vec![b'x'; self.bytes]);
        let lanes = self.in_flight.div_ceil(self.batch);
        for lane in 0..lanes {
            // The last lane takes what is left over.
            let batch = self.batch.min(self.in_flight - lane * self.batch);
            let records = vec![record.clone(); batch];
            let (client, counted) = (clients[lane % clients.len()].clone(), counted.clone());
            local.spawn_local(async move {
                while Instant::now() < end && counted.borrow().failure.is_none() {
                    let begun = Instant::now();
                    let appended = client.append_batch(records.clone()).await;
                    let mut counted = counted.borrow_mut();
                    match appended {
                        Ok(_) if counted.is_counting => {
                            counted.records += records.len() as u64;
                            let nanoseconds = u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
                            counted.latency.saturating_record(nanoseconds);
                        }
                        Ok(_) => {}
                        Err(error) => counted.failure = Some(access::failure(error)),
                    }
                }
            });
        }
    }

    /// Begins to count after the warm-up, shows progress, and ends with the time.
    async fn watch(
        &self,
        client: &Client,
        counted: &Rc<RefCell<Counted>>,
    ) -> (Duration, u64, Vec<(Option<NodeStatus>, Option<NodeStatus>)>) {
        tokio::time::sleep(self.warm_up).await;
        let before = statuses(client).await;
        let begun = Instant::now();
        counted.borrow_mut().is_counting = true;
        let bar = ProgressBar::new(self.time.as_secs());
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} s, {msg}") {
            bar.set_style(style);
        }
        while begun.elapsed() < self.time {
            tokio::time::sleep((self.time - begun.elapsed()).min(Duration::from_millis(250))).await;
            bar.set_position(begun.elapsed().as_secs());
            let rate = counted.borrow().records as f64 / begun.elapsed().as_secs_f64();
            bar.set_message(format!("{rate:.0} records/s"));
        }
        counted.borrow_mut().is_counting = false;
        let (time, records) = (begun.elapsed(), counted.borrow().records);
        bar.finish_and_clear();
        let after = statuses(client).await;
        (time, records, before.into_iter().zip(after).collect())
    }
}

async fn statuses(client: &Client) -> Vec<Option<NodeStatus>> {
    client.statuses().await.into_iter().map(|(_, _, status)| status.ok()).collect()
}
