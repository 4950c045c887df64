//! `trilith init`: makes a node's directory, once.

use std::path::PathBuf;

use super::configuration::{IoChoice, NodeConfiguration};
use super::{Exit, Failure, aside, failures, node, output};
use crate::disk;
use crate::net::Identity;
use crate::node::run;
use crate::random::entropy;
use crate::snapshot::Description;
use crate::superblock::{self, State};
use crate::types::{GroupId, HardState, Incarnation, Member, Membership};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The node's configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// A first member of a NEW cluster, together with all others in the [[member]] list; never a member whose directory
    /// was lost: it would vote a second time, and acknowledged records could go
    #[arg(long, required_unless_present = "join", conflicts_with = "join")]
    initial: bool,
    /// A later member of a cluster that exists; in the directory of a node that has lost its voice, or was removed, what is
    /// there is kept beside the new one
    #[arg(long)]
    join: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let configuration = node::load(&arguments.config, None)?;
    match (arguments.join, configuration.members.is_empty()) {
        (false, true) => Err(Failure::new(
            Exit::Usage,
            "the configuration lists no first members: [[member]] is missing",
            "list each first member of the new cluster in a [[member]]; for one that exists use --join",
        )),
        (true, false) => Err(Failure::new(
            Exit::Usage,
            "the configuration lists first members, and a node that joins a cluster is none",
            "remove each [[member]] from the file: the cluster says who belongs to it. For a new cluster use --initial",
        )),
        (false, false) => output::print(&format(&configuration, first_membership(&configuration))?.1),
        (true, true) => {
            let kept = aside::keep(&configuration)?;
            let (member, mut line) = format(&configuration, Membership::default())?;
            if let Some(kept) = kept {
                line += &format!(
                    "\nwhat was there before is kept, read-only, in {}: nothing needs it once this node votes",
                    kept.display()
                );
            }
            let Member { id, incarnation, address } = member;
            let start = format!("trilith node --config {}", arguments.config.display());
            let add =
                format!("trilith cluster add {id} --incarnation {incarnation} --address {address} --client ADMIN.toml");
            output::print(&format!("{line}\nstart it:\n  {start}\nand add it, with an admin's certificate:\n  {add}"))
        }
    }
}

/// Makes the directory that a configuration names, with the members that a new cluster has at first, or none for a later
/// one; gives which member that is, and what to tell the person.
pub fn format(configuration: &NodeConfiguration, members: Membership) -> Result<(Member, String), Failure> {
    format_from(configuration, members, None)
}

/// Who the configured node is, and of which cluster.
pub fn identity(configuration: &NodeConfiguration) -> Result<Identity, Failure> {
    let tls = &configuration.tls;
    Identity::load(&tls.certificate, &tls.key, &tls.ca, tls.crl.as_deref())
        .map_err(|error| failures::of_certificate(&error))
}

/// As [`format`], of a node whose log begins behind a snapshot, if one is given: it is in the directory already.
pub fn format_from(
    configuration: &NodeConfiguration,
    members: Membership,
    begun_from: Option<&Description>,
) -> Result<(Member, String), Failure> {
    let cluster = identity(configuration)?.name().cluster;
    let incarnation = Incarnation(entropy().max(1));
    let mut state = State::new(cluster, configuration.node_id, incarnation, members);
    if let Some(&Description { point, log_start, .. }) = begun_from {
        let hard_state = HardState { term: point.term, vote: None };
        *state.group_mut(GroupId::CLUSTER) = superblock::Group { hard_state, snapshot: point, log_start };
    }
    let directory = &configuration.data_directory;
    // A ring that is insisted on is insisted on where the node runs.
    let io = match configuration.io {
        IoChoice::Blocking => disk::IoChoice::Blocking,
        IoChoice::Auto | IoChoice::Uring => disk::IoChoice::Auto,
    };
    let chosen = run::format(directory, state, configuration.segment_bytes, io)
        .map_err(|error| failures::of_node(&error, directory))?;
    let member = Member { id: configuration.node_id, incarnation, address: configuration.advertise };
    let told = format!(
        "node {} of cluster {cluster}, incarnation {incarnation}, in {} (chosen for its disk: {chosen})",
        configuration.node_id,
        directory.display()
    );
    Ok((member, told))
}

/// All first members, as voters. Their incarnations are not known yet: each draws its own.
pub fn first_membership(configuration: &NodeConfiguration) -> Membership {
    let mut members: Vec<Member> = configuration
        .members
        .iter()
        .map(|member| Member { id: member.id, incarnation: Incarnation::OPEN, address: member.address })
        .collect();
    members.sort_by_key(|member| member.id);
    let voters = members.iter().map(|member| member.id).collect();
    Membership { members, voters, forming: true, ..Membership::default() }
}
