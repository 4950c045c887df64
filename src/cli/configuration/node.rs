//! The configuration of one node.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{BufMut, BytesMut};

use super::document::{Document, Origin, Override, Schema, Table};
use super::error::{Error, Invalid};
use crate::checksum::Checksum;
use crate::codec;
use crate::limits::{
    BLOCK_BYTES, ELECTION_MAX_DEFAULT, ELECTION_MIN_DEFAULT, FOLLOWER_TAIL_BYTES_DEFAULT,
    FOLLOWER_TAIL_MINUTES_DEFAULT, HEARTBEAT_DEFAULT, MEMBERS_MAX, SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MAX,
    SEGMENT_BYTES_MIN, SNAPSHOT_BYTES_DEFAULT, SNAPSHOT_BYTES_PER_SECOND_DEFAULT, SNAPSHOT_BYTES_PER_SECOND_MAX,
    SNAPSHOT_BYTES_PER_SECOND_MIN, SNAPSHOT_ENTRIES_DEFAULT, SNAPSHOT_FETCH_BYTES_PER_SECOND_DEFAULT, TICK,
    UNCOMMITTED_BYTES_DEFAULT, UNCOMMITTED_BYTES_MAX, UNCOMMITTED_BYTES_MIN,
};
use crate::node::driver::{FollowerTail, RetentionRule, record_bytes_max};
use crate::types::NodeId;

pub const SCHEMA: Schema = Schema {
    keys: &[
        "node_id",
        "data_directory",
        "listen",
        "advertise",
        "certificate",
        "key",
        "ca",
        "crl",
        "io",
        "segment_bytes",
        "verify_at_start",
        "uncommitted_bytes_max",
        "heartbeat_milliseconds",
        "election_milliseconds_min",
        "election_milliseconds_max",
        "lease_drift_percent",
        "retention",
        "retention_bytes",
        "retention_minutes",
        "follower_tail_bytes",
        "follower_tail_minutes",
        "snapshot_entries",
        "snapshot_bytes",
        "snapshot_bytes_per_second",
        "snapshot_fetch_bytes_per_second",
    ],
    list: "member",
    list_keys: &["id", "address"],
};

/// No cluster that waits longer than this for a new leader serves anyone.
const ELECTION_MAX: Duration = Duration::from_secs(60);
/// TOML's integers end here.
const NODE_ID_MAX: u64 = i64::MAX as u64;
/// A clock that is off by more is broken.
const LEASE_DRIFT_PERCENT_MAX: u32 = 50;
const MINUTE_MILLISECONDS: u64 = 60_000;
/// A hundred years.
const RETENTION_MINUTES_MAX: u64 = 100 * 366 * 24 * 60;
/// An exbibyte.
const RETENTION_BYTES_MAX: u64 = 1 << 60;
/// What `retention` may be.
const ALL: &str = "all";
const SNAPSHOT: &str = "snapshot";
const RETENTIONS: &str = "\"all\" or \"snapshot\"";
const ID: &str = "from 1 to 9223372036854775807";
const ADDRESS: &str = "an IP address with a port, as 10.0.0.1:7400 or [fd00::1]:7400";

/// What a node is told, one field for each key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeSettings {
    pub node_id: NodeId,
    pub data_directory: PathBuf,
    /// Where the node takes connections; the address may be `0.0.0.0` or `[::]`.
    pub listen: SocketAddr,
    /// Where the others reach it.
    pub advertise: SocketAddr,
    /// The first members of a new cluster, this node among them; empty at a node that joins one. Who belongs to the
    /// cluster later stands in the log.
    pub members: Vec<ConfiguredMember>,
    pub tls: TlsFiles,
    pub io: IoChoice,
    /// Of segments made from now on. A multiple of [`BLOCK_BYTES`].
    pub segment_bytes: u64,
    /// A start reads the whole log, and not its end alone.
    pub verify_at_start: bool,
    /// Taken and not committed while this node leads; beyond it clients are told to ask later.
    pub uncommitted_bytes_max: usize,
    pub heartbeat: Duration,
    /// An election timeout is drawn between these two, anew for each wait.
    pub election_min: Duration,
    pub election_max: Duration,
    /// By how many hundredths one member's clock may be faster than another's, for reads by lease; 0: they are off.
    pub lease_drift_percent: u32,
    /// What is kept of the log; the keys say 0 where there is no bound.
    pub retention: RetentionRule,
    /// What is kept of it for followers that lag, though nobody else needs it; 0 of one of them: nothing is.
    pub follower_tail: FollowerTail,
    /// While this node leads, a snapshot is made when so many entries were applied since the last one; 0: their number does
    /// not matter.
    pub snapshot_entries: u64,
    /// The same for their bytes.
    pub snapshot_bytes: u64,
    /// What this node writes of a snapshot in a second.
    pub snapshot_bytes_per_second: u64,
    /// What it fetches of another node's.
    pub snapshot_fetch_bytes_per_second: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ConfiguredMember {
    pub id: NodeId,
    pub address: SocketAddr,
}

/// PEM files.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub ca: PathBuf,
    /// Revoked certificates; read again when it changes.
    pub crl: Option<PathBuf>,
}

/// Which way to the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum IoChoice {
    /// io_uring where it works, else blocking calls
    Auto,
    /// io_uring, or refuse to start
    Uring,
    /// Blocking calls on a thread
    Blocking,
}

/// Settings that have been checked. There is no other way to make one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeConfiguration(NodeSettings);

impl NodeSettings {
    /// Settings with the default for everything that has one, for a cluster of this node alone.
    pub fn new(node_id: NodeId, data_directory: PathBuf, listen: SocketAddr, tls: TlsFiles) -> NodeSettings {
        NodeSettings {
            node_id,
            data_directory,
            listen,
            advertise: listen,
            members: vec![ConfiguredMember { id: node_id, address: listen }],
            tls,
            io: IoChoice::Auto,
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            uncommitted_bytes_max: UNCOMMITTED_BYTES_DEFAULT,
            heartbeat: HEARTBEAT_DEFAULT,
            election_min: ELECTION_MIN_DEFAULT,
            election_max: ELECTION_MAX_DEFAULT,
            verify_at_start: false,
            lease_drift_percent: 0,
            retention: RetentionRule::default(),
            follower_tail: FollowerTail {
                bytes: FOLLOWER_TAIL_BYTES_DEFAULT,
                milliseconds: FOLLOWER_TAIL_MINUTES_DEFAULT * MINUTE_MILLISECONDS,
            },
            snapshot_entries: SNAPSHOT_ENTRIES_DEFAULT,
            snapshot_bytes: SNAPSHOT_BYTES_DEFAULT,
            snapshot_bytes_per_second: SNAPSHOT_BYTES_PER_SECOND_DEFAULT,
            snapshot_fetch_bytes_per_second: SNAPSHOT_FETCH_BYTES_PER_SECOND_DEFAULT,
        }
    }
}

impl NodeConfiguration {
    /// Reads a node's file. Of `overrides` the later go over the earlier: first the environment's, then the flags'.
    pub fn load(path: &Path, overrides: &[Override]) -> Result<NodeConfiguration, Error> {
        NodeConfiguration::from_document(&Document::load(path, &SCHEMA, overrides)?)
    }

    /// As [`NodeConfiguration::load`], of a text that stands, or will stand, at `path`.
    pub fn parse(path: &Path, text: &str, overrides: &[Override]) -> Result<NodeConfiguration, Error> {
        NodeConfiguration::from_document(&Document::parse(path, text, &SCHEMA, overrides)?)
    }

    /// Settings that a program has made.
    pub fn checked(settings: NodeSettings) -> Result<NodeConfiguration, Invalid> {
        check_paths(&settings)?;
        check_addresses(&settings)?;
        check_members(&settings)?;
        check_segment(&settings)?;
        check_uncommitted(&settings)?;
        check_times(&settings)?;
        check_drift(&settings)?;
        check_retention(&settings)?;
        check_follower_tail(&settings)?;
        check_snapshots(&settings)?;
        Ok(NodeConfiguration(settings))
    }

    fn from_document(document: &Document) -> Result<NodeConfiguration, Error> {
        let settings = settings(document)?;
        NodeConfiguration::checked(settings).map_err(|invalid| {
            let origin = origin(document, &invalid.key);
            Error::Invalid { origin, invalid: Box::new(invalid) }
        })
    }

    /// What must agree across a cluster, as a number: in the upper half the times and the largest record, in the lower
    /// the first members, or 0 if none are listed. Two nodes whose fingerprints differ are configured differently. The size of segments counts
    /// by the largest record that fits one, so that among large ones it may be changed node by node.
    pub fn fingerprint(&self) -> u64 {
        let mut numbers = BytesMut::new();
        for duration in [self.heartbeat, self.election_min, self.election_max] {
            numbers.put_u64_le(milliseconds(duration));
        }
        numbers.put_u64_le(record_bytes_max(self.segment_bytes) as u64);
        if self.lease_drift_percent > 0 {
            numbers.put_u32_le(self.lease_drift_percent);
        }
        let sorted: BTreeMap<NodeId, SocketAddr> =
            self.members.iter().map(|member| (member.id, member.address)).collect();
        let mut members = BytesMut::new();
        for (id, address) in sorted {
            members.put_u64_le(id.0);
            codec::put_address(&mut members, address);
        }
        let members = if members.is_empty() { 0 } else { Checksum::of(&members).0.max(1) };
        u64::from(Checksum::of(&numbers).0) << 32 | u64::from(members)
    }

    /// The file that reads back as this configuration.
    pub fn render(&self) -> String {
        let mut out = String::from("# A node of a Trilith cluster. Every key is explained in docs/operations.md.\n\n");
        let mut line = |key: &str, value: toml::Value| {
            writeln!(out, "{key} = {value}").expect("a string takes every write");
        };
        line("node_id", number(self.node_id.0));
        line("data_directory", text(&self.data_directory));
        line("listen", self.listen.to_string().into());
        line("advertise", self.advertise.to_string().into());
        line("certificate", text(&self.tls.certificate));
        line("key", text(&self.tls.key));
        line("ca", text(&self.tls.ca));
        if let Some(crl) = &self.tls.crl {
            line("crl", text(crl));
        }
        line("io", self.io.name().into());
        line("segment_bytes", number(self.segment_bytes));
        line("verify_at_start", self.verify_at_start.into());
        line("uncommitted_bytes_max", number(self.uncommitted_bytes_max as u64));
        line("heartbeat_milliseconds", number(milliseconds(self.heartbeat)));
        line("election_milliseconds_min", number(milliseconds(self.election_min)));
        line("election_milliseconds_max", number(milliseconds(self.election_max)));
        line("lease_drift_percent", number(self.lease_drift_percent.into()));
        line("retention", if self.retention.is_for_map_alone { SNAPSHOT.into() } else { ALL.into() });
        line("retention_bytes", number(self.retention.bytes.unwrap_or(0)));
        line("retention_minutes", number(self.retention.milliseconds.unwrap_or(0) / MINUTE_MILLISECONDS));
        line("follower_tail_bytes", number(self.follower_tail.bytes));
        line("follower_tail_minutes", number(self.follower_tail.milliseconds / MINUTE_MILLISECONDS));
        line("snapshot_entries", number(self.snapshot_entries));
        line("snapshot_bytes", number(self.snapshot_bytes));
        line("snapshot_bytes_per_second", number(self.snapshot_bytes_per_second));
        line("snapshot_fetch_bytes_per_second", number(self.snapshot_fetch_bytes_per_second));
        for member in &self.members {
            let address = toml::Value::from(member.address.to_string());
            write!(out, "\n[[member]]\nid = {}\naddress = {address}\n", member.id).expect("a string takes every write");
        }
        out
    }
}

impl Deref for NodeConfiguration {
    type Target = NodeSettings;

    fn deref(&self) -> &NodeSettings {
        &self.0
    }
}

impl IoChoice {
    pub fn name(self) -> &'static str {
        match self {
            IoChoice::Auto => "auto",
            IoChoice::Uring => "uring",
            IoChoice::Blocking => "blocking",
        }
    }
}

impl std::str::FromStr for IoChoice {
    type Err = ();

    fn from_str(text: &str) -> Result<IoChoice, ()> {
        let all = [IoChoice::Auto, IoChoice::Uring, IoChoice::Blocking];
        all.into_iter().find(|choice| choice.name() == text).ok_or(())
    }
}

/// Values to settings, key by key; what concerns one value's form is refused here.
fn settings(document: &Document) -> Result<NodeSettings, Error> {
    let path = |key: &str, allowed: &str| document.required(key, allowed)?.path(key, document.directory());
    let optional = |key: &str| document.table.get(key);
    let integer = |key: &str, default: u64| optional(key).map_or(Ok(default), |value| value.integer(key));
    let duration = |key: &str, default: Duration| integer(key, milliseconds(default)).map(Duration::from_millis);
    let listen: SocketAddr = document.required("listen", ADDRESS)?.parse("listen", ADDRESS)?;
    Ok(NodeSettings {
        node_id: NodeId(document.required("node_id", ID)?.integer("node_id")?),
        data_directory: path("data_directory", "the directory of the log, made by `trilith init`")?,
        listen,
        advertise: optional("advertise").map_or(Ok(listen), |value| value.parse("advertise", ADDRESS))?,
        members: document.list.iter().map(|table| member(document, table)).collect::<Result<_, Error>>()?,
        tls: TlsFiles {
            certificate: path("certificate", "the node's certificate, a PEM file")?,
            key: path("key", "the certificate's private key, a PEM file")?,
            ca: path("ca", "the certificate of the cluster's authority, a PEM file")?,
            crl: optional("crl").map(|value| value.path("crl", document.directory())).transpose()?,
        },
        io: optional("io")
            .map_or(Ok(IoChoice::Auto), |value| value.parse("io", "\"auto\", \"uring\" or \"blocking\""))?,
        segment_bytes: integer("segment_bytes", SEGMENT_BYTES_DEFAULT)?,
        verify_at_start: optional("verify_at_start").map_or(Ok(false), |value| value.boolean("verify_at_start"))?,
        uncommitted_bytes_max: integer("uncommitted_bytes_max", UNCOMMITTED_BYTES_DEFAULT as u64)
            .map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX))?,
        heartbeat: duration("heartbeat_milliseconds", HEARTBEAT_DEFAULT)?,
        election_min: duration("election_milliseconds_min", ELECTION_MIN_DEFAULT)?,
        election_max: duration("election_milliseconds_max", ELECTION_MAX_DEFAULT)?,
        lease_drift_percent: integer("lease_drift_percent", 0)
            .map(|percent| u32::try_from(percent).unwrap_or(u32::MAX))?,
        retention: RetentionRule {
            bytes: Some(integer("retention_bytes", 0)?).filter(|&bytes| bytes > 0),
            milliseconds: Some(integer("retention_minutes", 0)?)
                .filter(|&minutes| minutes > 0)
                .map(|minutes| minutes.saturating_mul(MINUTE_MILLISECONDS)),
            is_for_map_alone: match optional("retention") {
                None => false,
                Some(value) => match value.text("retention")? {
                    ALL => false,
                    SNAPSHOT => true,
                    _ => return Err(value.invalid("retention", RETENTIONS)),
                },
            },
        },
        follower_tail: FollowerTail {
            bytes: integer("follower_tail_bytes", FOLLOWER_TAIL_BYTES_DEFAULT)?,
            milliseconds: integer("follower_tail_minutes", FOLLOWER_TAIL_MINUTES_DEFAULT)?
                .saturating_mul(MINUTE_MILLISECONDS),
        },
        snapshot_entries: integer("snapshot_entries", SNAPSHOT_ENTRIES_DEFAULT)?,
        snapshot_bytes: integer("snapshot_bytes", SNAPSHOT_BYTES_DEFAULT)?,
        snapshot_bytes_per_second: integer("snapshot_bytes_per_second", SNAPSHOT_BYTES_PER_SECOND_DEFAULT)?,
        snapshot_fetch_bytes_per_second: integer(
            "snapshot_fetch_bytes_per_second",
            SNAPSHOT_FETCH_BYTES_PER_SECOND_DEFAULT,
        )?,
    })
}

fn member(document: &Document, table: &Table) -> Result<ConfiguredMember, Error> {
    let value = |key: &str, allowed: &str| {
        table
            .get(key)
            .ok_or_else(|| document.missing(&format!("member.{key}"), &format!("{allowed}, in each [[member]]")))
    };
    let id = NodeId(value("id", "the node's id")?.integer("id")?);
    Ok(ConfiguredMember { id, address: value("address", ADDRESS)?.parse("address", ADDRESS)? })
}

/// Where the value came from that a check refused: `member[2].address` is that of the third [[member]].
fn origin(document: &Document, key: &str) -> Origin {
    let place = key.strip_prefix("member[").and_then(|rest| rest.split_once("]."));
    match place.and_then(|(at, key)| Some((at.parse::<usize>().ok()?, key))) {
        Some((at, key)) => document.list.get(at).and_then(|table| table.get(key)).map(|value| value.origin.clone()),
        None if document.table.contains_key(key) => Some(document.origin(key)),
        None => Some(Origin::File { path: document.path.clone(), line: 1 }),
    }
    .unwrap_or(Origin::Default)
}

fn refuse(key: &str, value: impl ToString, allowed: &str, next_step: &str) -> Result<(), Invalid> {
    Err(Invalid {
        key: key.to_string(),
        value: value.to_string(),
        allowed: allowed.to_string(),
        next_step: next_step.to_string(),
    })
}

fn check_paths(settings: &NodeSettings) -> Result<(), Invalid> {
    let tls = &settings.tls;
    let all = [
        ("data_directory", Some(&settings.data_directory)),
        ("certificate", Some(&tls.certificate)),
        ("key", Some(&tls.key)),
        ("ca", Some(&tls.ca)),
        ("crl", tls.crl.as_ref()),
    ];
    match all.into_iter().find(|(_, path)| path.is_some_and(|path| path.to_str().is_none_or(str::is_empty))) {
        Some((key, path)) => {
            let shown = path.map(|path| path.display().to_string()).unwrap_or_default();
            refuse(key, shown, "a path in UTF-8, not empty", "choose another name")
        }
        None => Ok(()),
    }
}

fn check_addresses(settings: &NodeSettings) -> Result<(), Invalid> {
    if settings.listen.port() == 0 {
        let next = "choose a port; `trilith dev` and `demo` choose theirs when they make a cluster";
        return refuse("listen", settings.listen, "an address with a port other than 0", next);
    }
    if !is_reachable(settings.advertise) {
        let next = "set `advertise` to the address at which the other members reach this node";
        return refuse("advertise", settings.advertise, "an address that others can reach, with a port", next);
    }
    Ok(())
}

fn is_id(id: NodeId) -> bool {
    (1..=NODE_ID_MAX).contains(&id.0)
}

fn is_reachable(address: SocketAddr) -> bool {
    address.port() != 0 && !address.ip().is_unspecified()
}

fn check_members(settings: &NodeSettings) -> Result<(), Invalid> {
    let members = &settings.members;
    if !is_id(settings.node_id) {
        return refuse("node_id", settings.node_id, ID, "number the nodes from 1 on");
    }
    if members.is_empty() {
        return Ok(());
    }
    if members.len() > MEMBERS_MAX {
        let allowed = format!("at most {MEMBERS_MAX} members");
        return refuse(
            "member",
            format!("{} members", members.len()),
            &allowed,
            "list each first member in a [[member]]",
        );
    }
    for (at, member) in members.iter().enumerate() {
        let key = |name: &str| format!("member[{at}].{name}");
        let before = &members[..at];
        if !is_id(member.id) || before.iter().any(|other| other.id == member.id) {
            let allowed = format!("{ID}, and no other member's");
            return refuse(&key("id"), member.id, &allowed, "give each member an id of its own");
        }
        if !is_reachable(member.address) || before.iter().any(|other| other.address == member.address) {
            let allowed = "an address that others can reach, and no other member's";
            return refuse(&key("address"), member.address, allowed, "give each member an address of its own");
        }
        if member.id == settings.node_id && member.address != settings.advertise {
            let allowed = format!("what this node advertises, {}", settings.advertise);
            return refuse(
                &key("address"),
                member.address,
                &allowed,
                "make `advertise` and the node's [[member]] agree",
            );
        }
    }
    if !members.iter().any(|member| member.id == settings.node_id) {
        let allowed = "the id of one [[member]]";
        let next = "add this node to the first members, or correct its id; a node that joins a cluster lists none";
        return refuse("node_id", settings.node_id, allowed, next);
    }
    Ok(())
}

fn check_segment(settings: &NodeSettings) -> Result<(), Invalid> {
    let bytes = settings.segment_bytes;
    if (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&bytes) && bytes.is_multiple_of(BLOCK_BYTES as u64) {
        return Ok(());
    }
    let allowed = format!("a multiple of {BLOCK_BYTES} from {SEGMENT_BYTES_MIN} to {SEGMENT_BYTES_MAX}");
    let next = format!("leave the key out for the default, {SEGMENT_BYTES_DEFAULT}");
    refuse("segment_bytes", bytes, &allowed, &next)
}

fn check_uncommitted(settings: &NodeSettings) -> Result<(), Invalid> {
    let bytes = settings.uncommitted_bytes_max;
    if (UNCOMMITTED_BYTES_MIN..=UNCOMMITTED_BYTES_MAX).contains(&bytes) {
        return Ok(());
    }
    let allowed = format!("from {UNCOMMITTED_BYTES_MIN} to {UNCOMMITTED_BYTES_MAX}");
    let next = format!("leave the key out for the default, {UNCOMMITTED_BYTES_DEFAULT}");
    refuse("uncommitted_bytes_max", bytes, &allowed, &next)
}

fn check_drift(settings: &NodeSettings) -> Result<(), Invalid> {
    let percent = settings.lease_drift_percent;
    if percent <= LEASE_DRIFT_PERCENT_MAX {
        return Ok(());
    }
    let allowed = format!("from 0 to {LEASE_DRIFT_PERCENT_MAX}");
    refuse("lease_drift_percent", percent, &allowed, "leave the key out: reads by lease are off then")
}

/// The bound in bytes is one of whole segments, of which there are two at least: one in use, and one that has ended.
fn check_retention(settings: &NodeSettings) -> Result<(), Invalid> {
    let RetentionRule { bytes, milliseconds, is_for_map_alone } = settings.retention;
    if is_for_map_alone && (bytes.is_some() || milliseconds.is_some()) {
        let allowed = "\"all\", or \"snapshot\" without `retention_bytes` and `retention_minutes`";
        let next = "leave those two out: with \"snapshot\" there are no records to be kept, and the log goes as far as \
                    snapshots hold it";
        return refuse("retention", "\"snapshot\"", allowed, next);
    }
    let least = 2 * settings.segment_bytes;
    if let Some(bytes) = bytes.filter(|bytes| !(least..=RETENTION_BYTES_MAX).contains(bytes)) {
        let allowed = format!("0, or from two segments, {least}, to {RETENTION_BYTES_MAX}");
        return refuse("retention_bytes", bytes, &allowed, "leave the key out: then there is no bound in bytes");
    }
    if let Some(minutes) = milliseconds.map(|age| age / MINUTE_MILLISECONDS).filter(|age| *age > RETENTION_MINUTES_MAX)
    {
        let allowed = format!("0, or up to {RETENTION_MINUTES_MAX}");
        return refuse("retention_minutes", minutes, &allowed, "leave the key out: then there is no bound in time");
    }
    Ok(())
}

fn check_follower_tail(settings: &NodeSettings) -> Result<(), Invalid> {
    let FollowerTail { bytes, milliseconds } = settings.follower_tail;
    if bytes > RETENTION_BYTES_MAX {
        let allowed = format!("up to {RETENTION_BYTES_MAX}");
        let next = format!("leave the key out for the default, {FOLLOWER_TAIL_BYTES_DEFAULT}");
        return refuse("follower_tail_bytes", bytes, &allowed, &next);
    }
    let minutes = milliseconds / MINUTE_MILLISECONDS;
    if minutes > RETENTION_MINUTES_MAX {
        let allowed = format!("up to {RETENTION_MINUTES_MAX}");
        let next = format!("leave the key out for the default, {FOLLOWER_TAIL_MINUTES_DEFAULT}");
        return refuse("follower_tail_minutes", minutes, &allowed, &next);
    }
    Ok(())
}

fn check_snapshots(settings: &NodeSettings) -> Result<(), Invalid> {
    let (written, fetched) = (settings.snapshot_bytes_per_second, settings.snapshot_fetch_bytes_per_second);
    for (key, bytes, default) in [
        ("snapshot_bytes_per_second", written, SNAPSHOT_BYTES_PER_SECOND_DEFAULT),
        ("snapshot_fetch_bytes_per_second", fetched, SNAPSHOT_FETCH_BYTES_PER_SECOND_DEFAULT),
    ] {
        if !(SNAPSHOT_BYTES_PER_SECOND_MIN..=SNAPSHOT_BYTES_PER_SECOND_MAX).contains(&bytes) {
            let allowed = format!("from {SNAPSHOT_BYTES_PER_SECOND_MIN} to {SNAPSHOT_BYTES_PER_SECOND_MAX}");
            return refuse(key, bytes, &allowed, &format!("leave the key out for the default, {default}"));
        }
    }
    Ok(())
}

fn check_times(settings: &NodeSettings) -> Result<(), Invalid> {
    let tick = milliseconds(TICK);
    let next = format!("leave the times out for the defaults, and keep them multiples of {tick} ms");
    let heartbeat = milliseconds(settings.heartbeat);
    let (min, max) = (milliseconds(settings.election_min), milliseconds(settings.election_max));
    let longest = milliseconds(ELECTION_MAX);
    if heartbeat == 0 || !heartbeat.is_multiple_of(tick) || heartbeat > longest {
        let allowed = format!("a multiple of {tick} from {tick} to {longest}");
        return refuse("heartbeat_milliseconds", heartbeat, &allowed, &next);
    }
    if min < 2 * heartbeat || !min.is_multiple_of(tick) || min > longest {
        let allowed = format!("a multiple of {tick} from twice the heartbeat, {}, to {longest}", 2 * heartbeat);
        return refuse("election_milliseconds_min", min, &allowed, &next);
    }
    if max <= min || !max.is_multiple_of(tick) || max > longest {
        let allowed = format!("a multiple of {tick} over election_milliseconds_min, {min}, and at most {longest}");
        return refuse("election_milliseconds_max", max, &allowed, &next);
    }
    Ok(())
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("times are far below 584 million years")
}

fn number(value: u64) -> toml::Value {
    toml::Value::Integer(i64::try_from(value).expect("ids and sizes are checked to be small"))
}

fn text(path: &Path) -> toml::Value {
    path.to_str().expect("paths are checked to be UTF-8").into()
}
