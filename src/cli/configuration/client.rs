//! What a client needs to find its cluster and to be let in: `client.toml`.

use std::fmt::Write;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use super::document::{Document, Origin, Schema};
use super::error::{Error, Invalid};
use crate::limits::MEMBERS_MAX;
use crate::types::{ClusterId, NodeId};

pub const SCHEMA: Schema = Schema {
    keys: &["cluster", "certificate", "key", "ca", "crl", "forward"],
    list: "node",
    list_keys: &["id", "address"],
};

const CLUSTER: &str = "the cluster's id, 32 hexadecimal digits, as `trilith init` prints it";
const ADDRESS: &str = "an IP address with a port, as 10.0.0.1:7400 or [fd00::1]:7400";

/// One field for each key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientSettings {
    pub cluster: ClusterId,
    /// Nodes to begin with; the cluster tells of the others.
    pub nodes: Vec<ClientNode>,
    pub certificate: PathBuf,
    pub key: PathBuf,
    pub ca: PathBuf,
    /// Revoked certificates: a node with one of them is not talked to.
    pub crl: Option<PathBuf>,
    /// A node that does not lead is to pass on what is written, instead of saying who leads.
    pub forward: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClientNode {
    pub id: NodeId,
    pub address: SocketAddr,
}

/// Settings that have been checked. There is no other way to make one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientConfiguration(ClientSettings);

impl ClientConfiguration {
    pub fn load(path: &Path) -> Result<ClientConfiguration, Error> {
        ClientConfiguration::from_document(&Document::load(path, &SCHEMA, &[])?)
    }

    /// As [`ClientConfiguration::load`], of a text that stands, or will stand, at `path`.
    pub fn parse(path: &Path, text: &str) -> Result<ClientConfiguration, Error> {
        ClientConfiguration::from_document(&Document::parse(path, text, &SCHEMA, &[])?)
    }

    /// Settings that a program has made.
    pub fn checked(settings: ClientSettings) -> Result<ClientConfiguration, Invalid> {
        let refuse = |key: &str, value: String, allowed: String| {
            Err(Invalid { next_step: format!("set `{key}` to {allowed}"), key: key.to_string(), value, allowed })
        };
        let paths = [("certificate", &settings.certificate), ("key", &settings.key), ("ca", &settings.ca)];
        for (key, path) in paths.into_iter().chain(settings.crl.as_ref().map(|crl| ("crl", crl))) {
            if path.to_str().is_none_or(str::is_empty) {
                return refuse(key, path.display().to_string(), "a path in UTF-8, not empty".to_string());
            }
        }
        let nodes = &settings.nodes;
        if nodes.is_empty() || nodes.len() > MEMBERS_MAX {
            return refuse("node", format!("{} nodes", nodes.len()), format!("a list of 1 to {MEMBERS_MAX} nodes"));
        }
        for (at, node) in nodes.iter().enumerate() {
            let same = |other: &ClientNode| other.id == node.id || other.address == node.address;
            let reachable = node.address.port() != 0 && !node.address.ip().is_unspecified();
            if !(1..=i64::MAX as u64).contains(&node.id.0) || !reachable || nodes[..at].iter().any(same) {
                let value = format!("{} at {}", node.id, node.address);
                return refuse("node", value, "an id from 1 on and a reachable address, both no other's".to_string());
            }
        }
        Ok(ClientConfiguration(settings))
    }

    fn from_document(document: &Document) -> Result<ClientConfiguration, Error> {
        let path = |key: &str, allowed: &str| document.required(key, allowed)?.path(key, document.directory());
        let cluster = document.required("cluster", CLUSTER)?;
        let digits = cluster.text("cluster")?;
        let id = u128::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 32);
        let mut nodes = Vec::new();
        for table in &document.list {
            let value = |key: &str, allowed: &str| {
                table
                    .get(key)
                    .ok_or_else(|| document.missing(&format!("node.{key}"), &format!("{allowed}, in each [[node]]")))
            };
            let id = NodeId(value("id", "the node's id")?.integer("id")?);
            nodes.push(ClientNode { id, address: value("address", ADDRESS)?.parse("address", ADDRESS)? });
        }
        let settings = ClientSettings {
            cluster: ClusterId(id.ok_or_else(|| cluster.invalid("cluster", CLUSTER))?),
            nodes,
            certificate: path("certificate", "the client's certificate, a PEM file")?,
            key: path("key", "the certificate's private key, a PEM file")?,
            ca: path("ca", "the certificate of the cluster's authority, a PEM file")?,
            crl: document.table.get("crl").map(|value| value.path("crl", document.directory())).transpose()?,
            forward: document.table.get("forward").map_or(Ok(false), |value| value.boolean("forward"))?,
        };
        ClientConfiguration::checked(settings).map_err(|invalid| {
            let whole_file = Origin::File { path: document.path.clone(), line: 1 };
            let place = document.table.get(&invalid.key).map_or(whole_file, |value| value.origin.clone());
            Error::Invalid { origin: place, invalid: Box::new(invalid) }
        })
    }

    /// The file that reads back as this configuration.
    pub fn render(&self) -> String {
        let path = |path: &Path| toml::Value::from(path.to_str().expect("paths are checked to be UTF-8"));
        let mut out = String::from("# For clients of a Trilith cluster: `--client FILE`, or TRILITH_CLIENT.\n\n");
        let mut line = |text: String| writeln!(out, "{text}").expect("a string takes every write");
        line(format!("cluster = \"{}\"", self.cluster));
        line(format!("certificate = {}", path(&self.certificate)));
        line(format!("key = {}", path(&self.key)));
        line(format!("ca = {}", path(&self.ca)));
        if let Some(crl) = &self.crl {
            line(format!("crl = {}", path(crl)));
        }
        if self.forward {
            line("forward = true".to_owned());
        }
        for node in &self.nodes {
            line(format!("\n[[node]]\nid = {}\naddress = \"{}\"", node.id, node.address));
        }
        out
    }
}

impl Deref for ClientConfiguration {
    type Target = ClientSettings;

    fn deref(&self) -> &ClientSettings {
        &self.0
    }
}
