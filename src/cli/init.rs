//! `trilith init`: makes a node's directory, once.

use std::path::PathBuf;

use super::configuration::{IoChoice, NodeConfiguration};
use super::{Exit, Failure, failures, node, output};
use crate::disk;
use crate::net::Identity;
use crate::node::run;
use crate::random::entropy;
use crate::superblock::State;
use crate::types::{Incarnation, Member, Membership};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The node's configuration file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// A first member of a NEW cluster, together with all others in the [[member]] list; never a member whose directory
    /// was lost: it would vote a second time, and acknowledged records could go
    #[arg(long, required_unless_present = "join", conflicts_with = "join")]
    initial: bool,
    /// A later member of a cluster that exists
    #[arg(long)]
    join: bool,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let configuration = node::load(&arguments.config, None)?;
    if arguments.join {
        return Err(Failure::new(
            Exit::Usage,
            "this version cannot add a member to a running cluster yet",
            "make all members at once, each with `trilith init --config FILE --initial`",
        ));
    }
    let line = format(&configuration)?;
    output::print(&line)
}

/// Makes the directory that a configuration names; gives what to tell the person.
pub fn format(configuration: &NodeConfiguration) -> Result<String, Failure> {
    let tls = &configuration.tls;
    let identity = Identity::load(&tls.certificate, &tls.key, &tls.ca, tls.crl.as_deref())
        .map_err(|error| failures::of_certificate(&error))?;
    let cluster = identity.name().cluster;
    let incarnation = Incarnation(entropy());
    let membership = first_membership(configuration);
    let state = State::new(cluster, configuration.node_id, incarnation, membership);
    let directory = &configuration.data_directory;
    // A ring that is insisted on is insisted on where the node runs.
    let io = match configuration.io {
        IoChoice::Blocking => disk::IoChoice::Blocking,
        IoChoice::Auto | IoChoice::Uring => disk::IoChoice::Auto,
    };
    let chosen = run::format(directory, state, configuration.segment_bytes, io)
        .map_err(|error| failures::of_node(&error, directory))?;
    Ok(format!(
        "node {} of cluster {cluster}, incarnation {incarnation}, in {} (chosen for its disk: {chosen})",
        configuration.node_id,
        directory.display()
    ))
}

/// All first members, as voters. Their incarnations are not known yet: each draws its own.
fn first_membership(configuration: &NodeConfiguration) -> Membership {
    let mut members: Vec<Member> = configuration
        .members
        .iter()
        .map(|member| Member { id: member.id, incarnation: Incarnation::UNNAMED, address: member.address })
        .collect();
    members.sort_by_key(|member| member.id);
    let voters = members.iter().map(|member| member.id).collect();
    Membership { members, voters, forming: true, ..Membership::default() }
}
