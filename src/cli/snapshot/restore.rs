//! `trilith snapshot restore`: a new cluster that begins with what a snapshot holds.

use std::path::{Path, PathBuf};

use super::locked::Locked;
use super::reading::{Finding, Reading};
use super::{failure_of_snapshot, reading};
use crate::cli::configuration::NodeConfiguration;
use crate::cli::exit::{Exit, Failure};
use crate::cli::progress::Meter;
use crate::cli::{init, node, output};
use crate::disk::{Directory, Files};
use crate::snapshot::{self, Condition, Copying, Description, Found, Manifest};
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
    /// Take the snapshot at this entry, and not the newest: where that one cannot be used, what came after is lost
    #[arg(long, value_name = "INDEX")]
    at: Option<u64>,
}

pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let configuration = node::load(&arguments.config, None)?;
    check_alone(&configuration)?;
    let cluster = init::identity(&configuration)?.name().cluster;
    let from = reading::open(&arguments.from)?;
    let source = choose(&from, &arguments.from, arguments.at)?;
    check_cluster(&source, cluster)?;
    let members = init::first_membership(&configuration);
    let to = target(&configuration)?;
    let description = description(&source.description, cluster, members.clone());
    check_nothing_else(&to.files, &configuration, &description)?;
    let mut meter = Meter::new();
    let copied = snapshot::copy(&from, &source, &to.files, description, |copying| match copying {
        Copying::Checked { bytes, of } => meter.show("checks the snapshot", bytes, Some(of)),
        Copying::Written { bytes, of } => meter.show("restores the snapshot", bytes, Some(of)),
    });
    drop(meter);
    let manifest = copied.map_err(|error| of_copy(&error))?;
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

/// The newest that there is, or the one that is asked for. An older one in its place would be a loss that nobody was told of.
pub fn choose(from: &impl Files, shown: &Path, at: Option<u64>) -> Result<Manifest, Failure> {
    let reading = Reading::take(from, shown.display().to_string(), false)?;
    let whole: Vec<&Manifest> = reading.listing.whole(GroupId::CLUSTER).collect();
    let others = |newest: &[&Manifest]| {
        let indexes: Vec<String> = newest.iter().map(|of| of.description.point.index.to_string()).collect();
        if indexes.is_empty() { "none".to_owned() } else { indexes.join(", ") }
    };
    if let Some(index) = at {
        let chosen = whole.iter().rev().find(|manifest| manifest.description.point.index.0 == index);
        return chosen.map(|manifest| (*manifest).clone()).ok_or_else(|| {
            let message = format!("{} holds no whole snapshot at entry {index}", shown.display());
            Failure::new(Exit::Usage, message, format!("whole are those at: {}", others(&whole)))
        });
    }
    let newest = whole.last().map_or(LogId::ZERO, |manifest| manifest.description.point);
    let in_doubt = |finding: &&Finding| finding.point.is_none_or(|point| point > newest);
    match (whole.last(), reading.worst(in_doubt)) {
        (Some(newest), None) => Ok((*newest).clone()),
        (Some(newest), Some(finding)) => Err(Failure::new(
            finding.exit,
            format!("{}: what is newest cannot be used: {}: {}", shown.display(), finding.name, finding.what),
            format!(
                "restore from another copy; or say `--at {}`: what came after that entry is lost then",
                newest.description.point.index
            ),
        )),
        (None, finding) => Err(Failure::new(
            finding.map_or(Exit::Corrupt, |finding| finding.exit),
            format!("{} holds no whole snapshot", shown.display()),
            format!("`trilith snapshot verify {}` says what is there", shown.display()),
        )),
    }
}

fn of_copy(error: &snapshot::Error) -> Failure {
    let failure = failure_of_snapshot(error);
    let next_step =
        "restore from another copy, or from an older snapshot with `--at INDEX`: what came after is lost then";
    match error {
        snapshot::Error::Damaged { .. } => Failure { next_step: next_step.to_owned(), ..failure },
        _ => failure,
    }
}

/// The same cluster would exist twice, and clients could write to either.
fn check_cluster(source: &Manifest, cluster: ClusterId) -> Result<(), Failure> {
    match source.description.cluster == cluster {
        false => Ok(()),
        true => Err(Failure::new(
            Exit::Usage,
            format!("the configuration's certificate names cluster {cluster}, which the snapshot is of"),
            "make certificates of a new cluster: `trilith cert`; to give an old member its data back, let it join",
        )),
    }
}

/// The directory of the node to be, which may exist, and must be nobody's.
fn target(configuration: &NodeConfiguration) -> Result<Locked, Failure> {
    let path = &configuration.data_directory;
    let to = Locked::take(path)?;
    match superblock::inspect(&to.files) {
        Err(superblock::Error::NotFormatted) => Ok(to),
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
