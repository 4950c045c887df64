//! `trilith snapshot restore`: a new cluster that begins with what a snapshot holds.

use std::path::PathBuf;

use super::{failure_of_snapshot, reading};
use crate::cli::configuration::NodeConfiguration;
use crate::cli::exit::{Exit, Failure};
use crate::cli::{init, node, output};
use crate::disk::Directory;
use crate::snapshot::{self, Condition, Description, Found, Manifest};
use crate::superblock;
use crate::types::{ClusterId, GroupId, LogId, Membership};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// A directory with the snapshot: what `trilith snapshot export` wrote, or the data directory of a node that is gone
    #[arg(value_name = "DIRECTORY")]
    from: PathBuf,
    /// The configuration of the first node of the NEW cluster, alone in its [[member]] list; its certificate names that
    /// cluster
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let configuration = node::load(&arguments.config, None)?;
    check_alone(&configuration)?;
    let cluster = init::identity(&configuration)?.name().cluster;
    let from = reading::open(&arguments.from)?;
    let source = newest(&from, arguments)?;
    check_cluster(&source, cluster)?;
    let members = init::first_membership(&configuration);
    let to = target(&configuration)?;
    let description = description(&source.description, cluster, members.clone());
    check_nothing_else(&to, &configuration, &description)?;
    let manifest = snapshot::copy(&from, &source, &to, description).map_err(|error| failure_of_snapshot(&error))?;
    let (_, told) = init::format_from(&configuration, members, Some(&manifest.description))?;
    let Description { point, .. } = manifest.description;
    output::print(&format!(
        "{told}\nit begins with the state of cluster {} at entry {point}, {} bytes; records before it stay behind\nstart \
         it:\n  trilith node --config {}\nand let others join it: `trilith init --join`, then `trilith cluster add`",
        source.description.cluster,
        manifest.bytes,
        arguments.config.display()
    ))
}

/// Two directories that were restored from two snapshots, or from one that rotted in one place, would differ for ever, and
/// nobody would see it: the others take the state from the first.
fn check_alone(configuration: &NodeConfiguration) -> Result<(), Failure> {
    match configuration.members.len() {
        1 => Ok(()),
        count => Err(Failure::new(
            Exit::Usage,
            format!("the configuration lists {count} first members, and a restored cluster begins with one"),
            "list this node alone in [[member]]; the others join it with `trilith init --join` and `trilith cluster add`",
        )),
    }
}

fn newest(from: &Directory, arguments: &Arguments) -> Result<Manifest, Failure> {
    let listing = snapshot::list(from, None).map_err(|error| failure_of_snapshot(&error))?;
    listing.whole(GroupId::CLUSTER).next_back().cloned().ok_or_else(|| {
        Failure::new(
            Exit::Corrupt,
            format!("{} holds no whole snapshot", arguments.from.display()),
            format!("`trilith snapshot verify {}` says what is there", arguments.from.display()),
        )
    })
}

/// The same cluster would exist twice, and clients could write to either.
fn check_cluster(source: &Manifest, cluster: ClusterId) -> Result<(), Failure> {
    match source.description.cluster == cluster {
        false => Ok(()),
        true => Err(Failure::new(
            Exit::Usage,
            format!("the configuration's certificate names cluster {cluster}, which the snapshot is of"),
            "make certificates of a new cluster: `trilith certificate`; to give an old member its data back, let it join",
        )),
    }
}

/// The directory of the node to be, which may exist, and must be nobody's.
fn target(configuration: &NodeConfiguration) -> Result<Directory, Failure> {
    let path = &configuration.data_directory;
    let directory = match Directory::open(path) {
        Ok(directory) => directory,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Directory::create(path).map_err(|error| reading::disk_failure(&error))?
        }
        Err(error) => return Err(reading::disk_failure(&error)),
    };
    match superblock::inspect(&directory) {
        Err(superblock::Error::NotFormatted) => Ok(directory),
        Ok(_) | Err(_) => Err(Failure::new(
            Exit::Usage,
            format!("{} belongs to a node already", path.display()),
            "choose another data_directory: what is there stays as it is",
        )),
    }
}

/// What an earlier attempt left is gone on with if it was the same; nothing else may be taken for it.
fn check_nothing_else(
    to: &Directory,
    configuration: &NodeConfiguration,
    description: &Description,
) -> Result<(), Failure> {
    let listing = snapshot::list(to, None).map_err(|error| failure_of_snapshot(&error))?;
    let is_other = |found: &&Found| found.manifest().is_none_or(|manifest| manifest.description != *description);
    let is_finished = |found: &&Found| !matches!(found.condition, Condition::Unfinished(_));
    match listing.found.iter().filter(is_finished).find(is_other) {
        None => Ok(()),
        Some(found) => Err(Failure::new(
            Exit::Usage,
            format!("{} holds {} already, of another cluster, state or members", path(configuration), found.name),
            "choose another data_directory, or remove what an earlier attempt has left there",
        )),
    }
}

fn path(configuration: &NodeConfiguration) -> std::path::Display<'_> {
    configuration.data_directory.display()
}

/// The new cluster's members are those of its configuration, and its log begins behind the state.
fn description(source: &Description, cluster: ClusterId, members: Membership) -> Description {
    Description {
        cluster,
        membership: members,
        membership_id: LogId::ZERO,
        log_start: source.point.index.next(),
        ..source.clone()
    }
}
