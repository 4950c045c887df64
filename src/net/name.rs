//! Who a certificate is for: the URI name in it.

use std::fmt;

use crate::types::{ClusterId, NodeId};

use super::error::CertificateError;

/// The longest name of a client or an administrator.
pub const ROLE_NAME_BYTES_MAX: usize = 64;
const SCHEME: &str = "trilith://";

/// What the holder of a certificate may do, and who they are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Role {
    /// Speaks as this member; may do what a client may.
    Node(NodeId),
    Client(String),
    /// May also change the cluster.
    Admin(String),
}

/// A role in a cluster.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Name {
    pub cluster: ClusterId,
    pub role: Role,
}

impl Role {
    pub fn is_admin(&self) -> bool {
        matches!(self, Role::Admin(_))
    }

    /// Refuses a name that could not be read back.
    pub(super) fn check(&self) -> Result<(), CertificateError> {
        let valid = match self {
            Role::Node(id) => id.0 > 0,
            Role::Client(name) | Role::Admin(name) => is_role_name(name),
        };
        valid.then_some(()).ok_or_else(|| CertificateError::BadRole { role: self.to_string() })
    }
}

impl Name {
    /// The one spelling of each name: what [`fmt::Display`] writes is what is read, and nothing else.
    pub fn parse(uri: &str) -> Result<Name, CertificateError> {
        let name = parse(uri).filter(|name| name.to_string() == uri);
        name.ok_or_else(|| CertificateError::BadName { uri: uri.to_owned() })
    }

    /// The cluster in an authority's URI.
    pub(super) fn parse_authority(uri: &str) -> Option<ClusterId> {
        let cluster = uri.strip_prefix(SCHEME)?.strip_suffix("/authority")?;
        parse_cluster(cluster)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Role::Node(id) => write!(formatter, "node/{id}"),
            Role::Client(name) => write!(formatter, "client/{name}"),
            Role::Admin(name) => write!(formatter, "admin/{name}"),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{SCHEME}{}/{}", self.cluster, self.role)
    }
}

fn parse(uri: &str) -> Option<Name> {
    let (cluster, role) = uri.strip_prefix(SCHEME)?.split_once('/')?;
    let cluster = parse_cluster(cluster)?;
    let role = match role.split_once('/')? {
        ("node", id) => Role::Node(NodeId(id.parse().ok().filter(|id| *id > 0)?)),
        ("client", name) if is_role_name(name) => Role::Client(name.to_owned()),
        ("admin", name) if is_role_name(name) => Role::Admin(name.to_owned()),
        _ => return None,
    };
    Some(Name { cluster, role })
}

fn parse_cluster(text: &str) -> Option<ClusterId> {
    (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok().map(ClusterId))?
}

fn is_role_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=ROLE_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed)
}
