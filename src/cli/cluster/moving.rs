//! What `trilith cluster status` says of snapshots that are made, fetched, installed and sent: how far each is, and whether
//! it moves.

use std::fmt;

use serde::Serialize;

use crate::net::{NodeStatus, SnapshotFetching, SnapshotMaking, SnapshotReader, SnapshotSending};

/// What has not moved for so long is said to stand still.
const QUIET_MILLISECONDS: u64 = 2000;

#[derive(Serialize)]
pub struct ShownMaking {
    index: u64,
    term: u64,
    written_bytes: u64,
    milliseconds: u64,
}

#[derive(Serialize)]
pub struct ShownFetching {
    index: u64,
    term: u64,
    from: u64,
    bytes: u64,
    bytes_here: u64,
    bytes_resumed: u64,
    bytes_installed: u64,
    milliseconds: u64,
    quiet_milliseconds: u64,
}

#[derive(Serialize)]
pub struct ShownSending {
    index: u64,
    term: u64,
    /// One of the two is null.
    to_node: Option<u64>,
    to_administrator: Option<String>,
    bytes: u64,
    bytes_sent: u64,
    milliseconds: u64,
    quiet_milliseconds: u64,
}

impl From<SnapshotMaking> for ShownMaking {
    fn from(making: SnapshotMaking) -> ShownMaking {
        let SnapshotMaking { point, bytes: written_bytes, milliseconds } = making;
        ShownMaking { index: point.index.0, term: point.term.0, written_bytes, milliseconds }
    }
}

impl From<SnapshotFetching> for ShownFetching {
    fn from(fetching: SnapshotFetching) -> ShownFetching {
        let SnapshotFetching { point, from, bytes, bytes_here, bytes_resumed, bytes_installed, .. } = fetching;
        ShownFetching {
            index: point.index.0,
            term: point.term.0,
            from: from.0,
            bytes,
            bytes_here,
            bytes_resumed,
            bytes_installed,
            milliseconds: fetching.milliseconds,
            quiet_milliseconds: fetching.quiet_milliseconds,
        }
    }
}

impl From<&SnapshotSending> for ShownSending {
    fn from(sending: &SnapshotSending) -> ShownSending {
        let (to_node, to_administrator) = match &sending.to {
            SnapshotReader::Node(node) => (Some(node.0), None),
            SnapshotReader::Administrator(name) => (None, Some(name.clone())),
        };
        ShownSending {
            index: sending.point.index.0,
            term: sending.point.term.0,
            to_node,
            to_administrator,
            bytes: sending.bytes,
            bytes_sent: sending.bytes_sent,
            milliseconds: sending.milliseconds,
            quiet_milliseconds: sending.quiet_milliseconds,
        }
    }
}

/// What moves on a node, a line each.
pub fn lines(status: &NodeStatus) -> Vec<String> {
    let snapshots = &status.snapshots;
    let made = snapshots.making.iter().map(making_line);
    let fetched = snapshots.fetching.iter().map(fetching_line);
    made.chain(fetched).chain(snapshots.sending.iter().map(sending_line)).collect()
}

/// What a bar says of a fetch, how much of that is done, and all of it if that is known.
pub fn fetching_bar(status: &NodeStatus) -> Option<(String, u64, Option<u64>)> {
    let SnapshotFetching { point, from, bytes, bytes_here, bytes_installed, .. } = status.snapshots.fetching?;
    let id = status.id;
    Some(match is_installing(bytes, bytes_here) {
        true => (format!("node {id} reads the snapshot at {point} into its state"), bytes_installed, Some(bytes)),
        false => {
            let all = Some(bytes).filter(|bytes| *bytes > 0);
            (format!("node {id} fetches the snapshot at {point} from node {from}"), bytes_here, all)
        }
    })
}

fn making_line(making: &SnapshotMaking) -> String {
    let SnapshotMaking { point, bytes, milliseconds } = *making;
    format!("writes a snapshot at {point}, {bytes} bytes so far{}", Pace { bytes, milliseconds, quiet_milliseconds: 0 })
}

fn fetching_line(fetching: &SnapshotFetching) -> String {
    let SnapshotFetching { point, from, bytes, bytes_here, bytes_resumed, bytes_installed, .. } = *fetching;
    let SnapshotFetching { milliseconds, quiet_milliseconds, .. } = *fetching;
    let pace = |bytes| Pace { bytes, milliseconds, quiet_milliseconds };
    if bytes == 0 {
        return format!("asks node {from} for the snapshot at {point}{}", pace(0));
    }
    if is_installing(bytes, bytes_here) {
        let done = Part { bytes: bytes_installed, of: bytes };
        // What it took to fetch is no part of how fast it is read.
        return format!("reads the snapshot at {point} into its state: {done}{}", pace(0));
    }
    let (done, came) = (Part { bytes: bytes_here, of: bytes }, pace(bytes_here.saturating_sub(bytes_resumed)));
    let resumed =
        if bytes_resumed > 0 { format!(", {bytes_resumed} of them by an earlier fetch") } else { String::new() };
    format!("fetches a snapshot at {point} from node {from}: {done}{resumed}{came}")
}

fn sending_line(sending: &SnapshotSending) -> String {
    let SnapshotSending { point, to, bytes: of, bytes_sent: bytes, milliseconds, quiet_milliseconds } = sending;
    let pace = Pace { bytes: *bytes, milliseconds: *milliseconds, quiet_milliseconds: *quiet_milliseconds };
    let to = match to {
        SnapshotReader::Node(node) => format!("node {node}"),
        SnapshotReader::Administrator(name) => format!("the administrator {name}"),
    };
    format!("sends a snapshot at {point} to {to}: {}{pace}", Part { bytes: *bytes, of: *of })
}

fn is_installing(bytes: u64, bytes_here: u64) -> bool {
    bytes > 0 && bytes_here == bytes
}

/// So much of all.
struct Part {
    bytes: u64,
    of: u64,
}

/// How fast it went so far, since when, and whether it stands still.
struct Pace {
    bytes: u64,
    milliseconds: u64,
    quiet_milliseconds: u64,
}

impl fmt::Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Part { bytes, of } = self;
        let percent = u128::from(*bytes) * 100 / u128::from((*of).max(1));
        write!(formatter, "{bytes} of {of} bytes ({percent} %)")
    }
}

impl fmt::Display for Pace {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Pace { bytes, milliseconds, quiet_milliseconds } = *self;
        if bytes > 0 && milliseconds > 0 {
            let mib_per_second = bytes as f64 / f64::from(1 << 20) / (milliseconds as f64 / 1000.0);
            write!(formatter, ", {mib_per_second:.1} MiB/s")?;
        }
        write!(formatter, ", for {} s", milliseconds / 1000)?;
        match quiet_milliseconds >= QUIET_MILLISECONDS {
            true => write!(formatter, ", NOTHING NEW FOR {} s", quiet_milliseconds / 1000),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Index, LogId, NodeId, Term};

    fn fetching() -> SnapshotFetching {
        SnapshotFetching {
            point: LogId::new(Term(2), Index(8)),
            from: NodeId(3),
            bytes: 100 << 20,
            bytes_here: 40 << 20,
            bytes_resumed: 10 << 20,
            bytes_installed: 0,
            milliseconds: 15_500,
            quiet_milliseconds: 1999,
        }
    }

    #[test]
    fn a_fetch_says_from_whom_how_much_how_fast_and_since_when() {
        assert_eq!(
            fetching_line(&fetching()),
            "fetches a snapshot at 8@2 from node 3: 41943040 of 104857600 bytes (40 %), 10485760 of them by an earlier \
             fetch, 1.9 MiB/s, for 15 s"
        );
        let new = SnapshotFetching { bytes: 0, bytes_here: 0, bytes_resumed: 0, ..fetching() };
        assert_eq!(fetching_line(&new), "asks node 3 for the snapshot at 8@2, for 15 s");
    }

    #[test]
    fn what_does_not_move_is_seen_at_a_glance() {
        let stuck = SnapshotFetching { quiet_milliseconds: 7000, ..fetching() };
        assert!(fetching_line(&stuck).ends_with(", for 15 s, NOTHING NEW FOR 7 s"), "{}", fetching_line(&stuck));
    }

    #[test]
    fn what_is_here_is_read_into_the_state() {
        let all = SnapshotFetching { bytes_here: 100 << 20, bytes_installed: 50 << 20, ..fetching() };
        let expected = "reads the snapshot at 8@2 into its state: 52428800 of 104857600 bytes (50 %), for 15 s";
        assert_eq!(fetching_line(&all), expected);
    }

    #[test]
    fn what_is_sent_says_to_whom() {
        let to = |to| {
            sending_line(&SnapshotSending {
                point: LogId::new(Term(2), Index(8)),
                to,
                bytes: 0,
                bytes_sent: 0,
                milliseconds: 0,
                quiet_milliseconds: 0,
            })
        };
        let rest = "0 of 0 bytes (0 %), for 0 s";
        assert_eq!(to(SnapshotReader::Node(NodeId(4))), format!("sends a snapshot at 8@2 to node 4: {rest}"));
        let ops = SnapshotReader::Administrator("ops".into());
        assert_eq!(to(ops), format!("sends a snapshot at 8@2 to the administrator ops: {rest}"));
    }
}
