//! `trilith cluster transfer`: ends when the other node leads, or says why it does not.
//!
//! It may be run again, whatever became of it before: who leads already is said to.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::members::{LOOK_INTERVAL, leader, leader_within};
use crate::cli::access::{self, ClientArguments};
use crate::cli::exit::{Exit, Failure};
use crate::cli::output::{self, Format};
use crate::client::{Client, Error, Looks};
use crate::net::{Change, NodeRole, NodeStatus, Refusal};
use crate::types::NodeId;

/// An order that came to nothing is given again after so long: a leader gives up after its longest election timeout.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub struct Transfer {
    /// The voter that is to lead
    #[arg(long, value_name = "ID")]
    to: u64,
    /// How to print the answer
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value = "table")]
    output: Format,
    #[command(flatten)]
    client: ClientArguments,
}

/// The document of `-o json`.
#[derive(Serialize)]
struct Led {
    leader: u64,
    term: u64,
    /// Nothing was to be done.
    already: bool,
}

impl Transfer {
    pub fn run(&self) -> Result<(), Failure> {
        access::block_on(async {
            let deadline = Instant::now() + self.client.timeout();
            let client = self.client.connect().await?;
            let first = leader_within(&client, deadline - Instant::now()).await?;
            let led = match first.id == self.to() {
                true => Led { leader: self.to, term: first.term.0, already: true },
                false => self.hand_over(&client, deadline).await?,
            };
            output::print(&output::shown(&led, table, self.output))
        })
    }

    fn to(&self) -> NodeId {
        NodeId(self.to)
    }

    async fn hand_over(&self, client: &Client, deadline: Instant) -> Result<Led, Failure> {
        let mut ordered_at = None;
        let (mut last, mut looks) = (None, Looks::new(client));
        while Instant::now() < deadline {
            if let Ok(status) = leader(&mut looks).await {
                if status.id == self.to() {
                    return Ok(Led { leader: self.to, term: status.term.0, already: false });
                }
                if !status.membership.voters.contains(&self.to()) {
                    return Err(no_voter(self.to(), &status));
                }
                // A leader takes no writes while it hands over: not again and again for one that is not there.
                let is_again = ordered_at.is_some_and(|at: Instant| at.elapsed() >= AGAIN);
                if ordered_at.is_none() || is_again && said_by(client, self.to()).await.is_ok() {
                    order(client, self.to(), deadline).await?;
                    ordered_at = Some(Instant::now());
                }
                last = Some(status);
            }
            tokio::time::sleep(LOOK_INTERVAL.min(deadline.saturating_duration_since(Instant::now()))).await;
        }
        Err(self.vain(client, last).await)
    }

    /// Its time is over: what is known of those two.
    async fn vain(&self, client: &Client, last: Option<NodeStatus>) -> Failure {
        let (to, patience) = (self.to(), self.client.timeout());
        let leads = match &last {
            Some(status) => format!("node {} leads, in term {}", status.id, status.term),
            None => "no node leads".to_owned(),
        };
        let why = match said_by(client, to).await {
            Err(why) => why,
            Ok(status) if status.role == NodeRole::Leader => format!("node {to} says that it leads by now"),
            Ok(status) if !status.waiting.is_empty() => format!("node {to} waits: {}", status.waiting),
            Ok(status) => match last.map_or(0, |last| last.last.index.0.saturating_sub(status.durable.index.0)) {
                0 => format!("node {to} has the whole log, and was not elected"),
                1 => format!("node {to} lacks the leader's last entry"),
                behind => format!("node {to} lacks the leader's last {behind} entries"),
            },
        };
        let message = format!("node {to} does not lead, after {patience:?}: {leads}; {why}");
        let next = "nothing is lost, and this may be run again: see that node's log and `trilith cluster status`";
        Failure::new(Exit::Unavailable, message, next)
    }
}

/// What a node says of itself, or why it says nothing.
async fn said_by(client: &Client, node: NodeId) -> Result<NodeStatus, String> {
    match tokio::time::timeout(AGAIN, client.status(node)).await {
        Ok(said) => said.map_err(|error| format!("node {node} does not answer: {error}")),
        Err(_) => Err(format!("node {node} does not answer")),
    }
}

/// That another transfer is under way, or that the outcome is unknown, is no reason to end: it is looked who leads.
async fn order(client: &Client, to: NodeId, deadline: Instant) -> Result<(), Failure> {
    let order = client.change(Change::Transfer(to));
    match tokio::time::timeout_at(deadline, order).await {
        Err(_) | Ok(Ok(_) | Err(Error::OutcomeUnknown | Error::Unavailable { .. } | Error::Busy)) => Ok(()),
        // It leads by now, or votes no more: that is looked at next.
        Ok(Err(Error::Refused(Refusal::Impossible { .. }))) => Ok(()),
        Ok(Err(error)) => Err(access::failure(error)),
    }
}

fn no_voter(to: NodeId, status: &NodeStatus) -> Failure {
    let membership = &status.membership;
    let (what, next) = match membership.member(to) {
        Some(_) => ("a learner, which cannot lead", "`trilith cluster promote` first lets it vote"),
        None => ("no member", "`trilith cluster status` shows who belongs to the cluster"),
    };
    Failure::new(Exit::Usage, format!("node {to} is {what}; node {} leads", status.id), next)
}

fn table(led: &Led) -> String {
    let already = if led.already { " already" } else { "" };
    format!("node {} leads{already}, in term {}", led.leader, led.term)
}
