//! `trilith cluster add|promote|remove`: who belongs to the cluster, and who votes.
//!
//! Each may be run again, whatever became of it before: what is so already is said so.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::moving::fetching_bar;
use crate::cli::access::{self, ClientArguments, Seconds, parse_wait};
use crate::cli::progress::Meter;
use crate::cli::{Exit, Failure, output};
use crate::client::{Client, Error, Looks};
use crate::limits::MEMBERS_MAX;
use crate::net::{MemberChange, NodeStatus, Refusal};
use crate::types::{Incarnation, Index, Member, Membership, NodeId};

/// Between two looks whether a learner votes.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub struct Add {
    /// The new member's id, as its configuration has it
    #[arg(value_parser = clap::value_parser!(u64).range(1..=i64::MAX as u64))]
    id: u64,
    /// Its incarnation, which `trilith init --join` has printed
    #[arg(long, value_name = "HEX", value_parser = parse_incarnation)]
    incarnation: Incarnation,
    /// Where the others reach it
    #[arg(long, value_name = "ADDRESS")]
    address: SocketAddr,
    /// Leave it a learner: it gets everything, and does not vote
    #[arg(long)]
    learner: bool,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    client: ClientArguments,
}

#[derive(Debug, clap::Args)]
pub struct Promote {
    /// The learners that are to vote
    #[arg(required = true, num_args = 1..=MEMBERS_MAX, value_name = "ID")]
    ids: Vec<u64>,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    client: ClientArguments,
}

#[derive(Debug, clap::Args)]
pub struct Remove {
    /// The members that are to go, all at once; with @INCARNATION only if that life of it is the member
    #[arg(required = true, num_args = 1..=MEMBERS_MAX, value_name = "ID[@INCARNATION]", value_parser = parse_leaving)]
    members: Vec<Leaving>,
    #[command(flatten)]
    client: ClientArguments,
}

/// A member that is to go: in the life that is named, or in the one that the cluster has now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Leaving {
    node: NodeId,
    incarnation: Option<Incarnation>,
}

#[derive(Debug, clap::Args)]
struct Patience {
    /// How long to wait until it votes; 0 waits for the order alone, and it votes by itself later
    #[arg(long, value_name = "SECONDS", value_parser = parse_wait, default_value_t = Seconds(Duration::from_secs(300)))]
    wait: Seconds,
}

impl Add {
    pub fn run(&self) -> Result<(), Failure> {
        if self.address.port() == 0 || self.address.ip().is_unspecified() {
            let message = format!("--address {} is none at which others can reach a node", self.address);
            return Err(Failure::new(Exit::Usage, message, "give what `advertise` is in the node's configuration"));
        }
        let member = Member { id: NodeId(self.id), incarnation: self.incarnation, address: self.address };
        access::block_on(async {
            let client = self.client.connect().await?;
            let index = change(&client, vec![MemberChange::Add { member, promote: !self.learner }]).await?;
            output::print(&match (index, self.learner) {
                (Index::ZERO, _) => format!("node {} is a member already", self.id),
                (_, true) => format!("node {} is a learner, by entry {index}", self.id),
                (_, false) => format!("node {} is a learner, by entry {index}, until it has caught up", self.id),
            })?;
            if self.learner {
                return Ok(());
            }
            until_voters(&client, &[self.id], self.patience.wait.0).await
        })
    }
}

impl Promote {
    pub fn run(&self) -> Result<(), Failure> {
        access::block_on(async {
            let client = self.client.connect().await?;
            let membership = leader_within(&client, self.client.timeout()).await?.membership;
            let wanted = |id: &u64| match membership.member(NodeId(*id)) {
                Some(member) => Ok(MemberChange::Add { member: member.clone(), promote: true }),
                None => Err(no_member(*id)),
            };
            change(&client, self.ids.iter().map(wanted).collect::<Result<_, _>>()?).await?;
            until_voters(&client, &self.ids, self.patience.wait.0).await
        })
    }
}

impl Remove {
    pub fn run(&self) -> Result<(), Failure> {
        access::block_on(async {
            let client = self.client.connect().await?;
            let membership = leader_within(&client, self.client.timeout()).await?.membership;
            let named: Vec<Leaving> = self.members.iter().filter_map(|leaving| leaving.named_in(&membership)).collect();
            let ids: Vec<u64> = self.members.iter().map(|leaving| leaving.node.0).collect();
            let nothing = format!("{} is no member: nothing was to be done", nodes(&ids));
            if named.is_empty() {
                return output::print(&nothing);
            }
            let removed = named.iter().filter_map(|leaving| leaving.removal()).collect();
            let index = client.change_members(removed).await.map_err(|error| failure_of_removal(error, &named))?;
            output::print(&match index {
                Index::ZERO => nothing,
                index => format!("{} is removed, by entry {index}", nodes(&ids)),
            })
        })
    }
}

impl Leaving {
    /// Which life goes: a removal that is asked for again must not meet the next one.
    fn named_in(self, membership: &Membership) -> Option<Leaving> {
        let incarnation = self.incarnation.or_else(|| membership.member(self.node).map(|member| member.incarnation))?;
        Some(Leaving { incarnation: Some(incarnation), ..self })
    }

    fn removal(self) -> Option<MemberChange> {
        Some(MemberChange::Remove { node: self.node, incarnation: self.incarnation? })
    }
}

impl std::fmt::Display for Leaving {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.incarnation {
            Some(incarnation) => write!(formatter, "{}@{incarnation}", self.node),
            None => write!(formatter, "{}", self.node),
        }
    }
}

/// What stands below the table of the nodes.
pub fn summary(membership: &Membership) -> String {
    let list = |ids: &mut dyn Iterator<Item = NodeId>| ids.map(|id| id.to_string()).collect::<Vec<_>>().join(" ");
    let mut out = format!("voters {}", list(&mut membership.voters.iter().copied()));
    if membership.is_joint() {
        out += &format!(", changing from {}", list(&mut membership.voters_outgoing.iter().copied()));
    }
    out.push('\n');
    let learners = membership.members.iter().map(|member| member.id).filter(|id| !membership.is_voter(*id));
    for learner in learners {
        let promoted = if membership.promoting.contains(&learner) { ", votes once it has caught up" } else { "" };
        out += &format!("learner {learner}{promoted}\n");
    }
    out
}

async fn change(client: &Client, changes: Vec<MemberChange>) -> Result<Index, Failure> {
    client.change_members(changes).await.map_err(failure)
}

async fn until_voters(client: &Client, ids: &[u64], patience: Duration) -> Result<(), Failure> {
    let deadline = Instant::now() + patience;
    let (mut meter, mut looks) = (Meter::new(), Looks::new(client));
    loop {
        let found = leader(&mut looks).await;
        if let Ok(status) = &found {
            let membership = &status.membership;
            if let Some(gone) = ids.iter().find(|id| membership.member(NodeId(**id)).is_none()) {
                return Err(no_member(*gone));
            }
            if !membership.is_joint() && ids.iter().all(|id| membership.voters.contains(&NodeId(*id))) {
                return output::print(&format!("{} votes", nodes(ids)));
            }
        }
        if patience.is_zero() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let message = format!("{} does not vote yet, after {patience:?}", nodes(ids));
            let next = "see that `trilith node` runs there and what its log says; it votes by itself once it has caught \
                        up, and this command may be run again to wait for it";
            return Err(Failure::new(Exit::Unavailable, message, next));
        }
        show(&mut looks, ids, &mut meter).await;
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// How far those are that are waited for, as far as they say: one that has not been started yet says nothing.
async fn show(looks: &mut Looks<'_>, ids: &[u64], meter: &mut Meter) {
    for id in ids {
        let asked = tokio::time::timeout(LOOK_INTERVAL, looks.status(NodeId(*id)));
        if let Ok(Ok(status)) = asked.await
            && let Some((what, bytes_here, bytes)) = fetching_bar(&status)
        {
            return meter.show(&what, bytes_here, bytes);
        }
    }
}

/// The leader's view, as soon as there is one.
pub(super) async fn leader_within(client: &Client, patience: Duration) -> Result<NodeStatus, Failure> {
    let deadline = Instant::now() + patience;
    let mut looks = Looks::new(client);
    loop {
        match leader(&mut looks).await {
            Err(failure) if failure.exit == Exit::Unavailable && Instant::now() < deadline => {}
            found => return found,
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// The leader's view.
pub(super) async fn leader(looks: &mut Looks<'_>) -> Result<NodeStatus, Failure> {
    looks.leader().await.ok_or_else(|| access::failure(Error::Unavailable { reason: "no node leads".to_owned() }))
}

/// Whatever came of it, to ask again is safe.
fn failure(error: Error) -> Failure {
    match &error {
        Error::OutcomeUnknown => {
            Failure::new(Exit::OutcomeUnknown, error.to_string(), "run it again: what is so already is said so")
        }
        Error::Refused(Refusal::Impossible { reason }) => Failure::new(
            Exit::Usage,
            reason.clone(),
            "nothing was changed; `trilith cluster status` shows who belongs to the cluster. A member whose directory or \
             address is another one now is removed first, and then added",
        ),
        _ => access::failure(error),
    }
}

/// By the lives that were seen: meanwhile another one may be a member.
fn failure_of_removal(error: Error, named: &[Leaving]) -> Failure {
    let failure = failure(error);
    match failure.exit {
        Exit::OutcomeUnknown | Exit::Unavailable => {
            let named: Vec<String> = named.iter().map(Leaving::to_string).collect();
            let again = format!("`trilith cluster remove {}`", named.join(" "));
            let next = format!("see that a majority runs, and run it again as {again}: what is so already is said so");
            Failure::new(failure.exit, failure.message, next)
        }
        _ => failure,
    }
}

fn no_member(id: u64) -> Failure {
    Failure::new(
        Exit::Usage,
        format!("node {id} is no member"),
        "add it first: `trilith init --join` makes its directory and prints the command",
    )
}

fn nodes(ids: &[u64]) -> String {
    let all: Vec<String> = ids.iter().map(|id| format!("node {id}")).collect();
    all.join(" and ")
}

fn parse_leaving(text: &str) -> Result<Leaving, String> {
    let (id, incarnation) = match text.split_once('@') {
        Some((id, incarnation)) => (id, Some(parse_incarnation(incarnation)?)),
        None => (text, None),
    };
    let id = id.parse().ok().filter(|id| *id > 0).ok_or("a node's id, a number from 1 on")?;
    Ok(Leaving { node: NodeId(id), incarnation })
}

fn parse_incarnation(text: &str) -> Result<Incarnation, String> {
    let number = u64::from_str_radix(text, 16).ok().filter(|number| text.len() == 16 && *number != 0);
    number.map(Incarnation).ok_or_else(|| "16 hexadecimal digits, as `trilith init --join` prints them".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_members_are_told_in_short() {
        let member = |id| Member {
            id: NodeId(id),
            incarnation: Incarnation(id),
            address: SocketAddr::from(([127, 0, 0, 1], id as u16)),
        };
        let ids = |ids: &[u64]| ids.iter().map(|id| NodeId(*id)).collect();
        let membership = Membership {
            members: (1..=5).map(member).collect(),
            voters: ids(&[1, 2]),
            voters_outgoing: ids(&[1, 3]),
            promoting: ids(&[5]),
            forming: false,
        };
        let told = "voters 1 2, changing from 1 3\nlearner 4\nlearner 5, votes once it has caught up\n";
        assert_eq!(summary(&membership), told);
    }

    #[test]
    fn an_incarnation_is_read_as_it_is_printed() {
        let incarnation = Incarnation(0x1234);
        assert_eq!(parse_incarnation(&incarnation.to_string()), Ok(incarnation));
        for text in ["", "12", "0000000000000000", "zzzzzzzzzzzzzzzz"] {
            assert!(parse_incarnation(text).is_err(), "{text}");
        }
    }

    #[test]
    fn who_is_to_go_is_named_in_the_life_that_was_seen() {
        let incarnation = Incarnation(0x1234);
        let (bare, named) = (parse_leaving("2").unwrap(), parse_leaving("2@0000000000001234").unwrap());
        assert_eq!((bare.incarnation, named.incarnation), (None, Some(incarnation)));
        assert_eq!(parse_leaving(&named.to_string()), Ok(named));
        for text in ["", "0", "x", "2@", "2@12", "@0000000000001234"] {
            assert!(parse_leaving(text).is_err(), "{text}");
        }
        let address = SocketAddr::from(([127, 0, 0, 1], 2));
        let members = vec![Member { id: NodeId(2), incarnation, address }];
        let membership = Membership { members, voters: [NodeId(2)].into(), ..Membership::default() };
        assert_eq!(bare.named_in(&membership), Some(named));
        assert_eq!(bare.named_in(&Membership::default()), None);
        assert_eq!(named.named_in(&Membership::default()), Some(named), "whatever is seen");
        let unknown = failure_of_removal(Error::OutcomeUnknown, &[named]);
        assert!(unknown.next_step.contains("remove 2@0000000000001234"), "{unknown}");
    }

    #[test]
    fn what_is_refused_for_good_is_a_matter_of_usage_and_what_is_unknown_may_be_repeated() {
        let refused = failure(Error::Refused(Refusal::Impossible { reason: "nobody would vote any more".into() }));
        assert_eq!((refused.exit, refused.message.as_str()), (Exit::Usage, "nobody would vote any more"));
        let unknown = failure(Error::OutcomeUnknown);
        assert!(unknown.exit == Exit::OutcomeUnknown && unknown.next_step.starts_with("run it again"), "{unknown}");
    }
}
