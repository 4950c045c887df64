//! The files of a local cluster: authority, certificates, configurations, formatted directories.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use crate::cli::configuration::{
    ClientConfiguration, ClientNode, ClientSettings, ConfiguredMember, Invalid, NodeConfiguration, NodeSettings,
    TlsFiles,
};
use crate::cli::{Exit, Failure, failures, init};
use crate::net::certificate::{Authority, Validity};
use crate::net::{Role, pem};
use crate::random::entropy;
use crate::types::{ClusterId, Member, Membership, NodeId};

/// How long the certificates of a local cluster are good.
const VALIDITY_DAYS: u32 = 3650;

/// How a cluster is made. What is there already stays as it is.
#[derive(Clone, Debug)]
pub struct LocalOptions {
    pub nodes: u64,
    pub segment_bytes: u64,
    /// Passed to each node as `--io`.
    pub io: Option<String>,
}

/// Makes what is missing; gives the number of nodes. Without addresses they listen on loopback, at free ports.
pub(super) fn make(directory: &Path, options: &LocalOptions, addresses: Option<&[SocketAddr]>) -> Result<u64, Failure> {
    let directory = &std::path::absolute(directory).map_err(|error| failure(directory, &error))?;
    let client_file = directory.join("client.toml");
    if client_file.exists() {
        let client = ClientConfiguration::load(&client_file)?;
        return Ok(client.nodes.len() as u64);
    }
    fs::create_dir_all(directory).map_err(|error| failure(directory, &error))?;
    refuse_strangers(directory)?;
    let cluster = ClusterId(u128::from(entropy()) << 64 | u128::from(entropy()));
    let authority = Authority::create(cluster, Validity::days(VALIDITY_DAYS)).map_err(certificate)?;
    pem::write(authority.pem(), &directory.join("ca.pem"), &directory.join("ca.key")).map_err(certificate)?;
    let addresses = addresses.map_or_else(|| free_addresses(options.nodes), |given| Ok(given.to_vec()))?;
    let member = |(id, address): (u64, SocketAddr)| ConfiguredMember { id: NodeId(id), address };
    let members: Vec<ConfiguredMember> = (1..).zip(addresses).map(member).collect();
    for member in &members {
        make_node(directory, &authority, *member, &members, options)?;
    }
    make_client(directory, &authority, &members, Role::Admin("local".to_owned()), "admin")?;
    // Last: a directory with this file is whole.
    make_client(directory, &authority, &members, Role::Client("local".to_owned()), "client")?;
    Ok(options.nodes)
}

/// A directory that was begun and not finished, or that is something else, is not written over.
fn refuse_strangers(directory: &Path) -> Result<(), Failure> {
    let mut entries = fs::read_dir(directory).map_err(|error| failure(directory, &error))?;
    if entries.next().is_none() {
        return Ok(());
    }
    Err(Failure::new(
        Exit::Usage,
        format!("{} is not empty, and holds no whole cluster (client.toml is missing)", directory.display()),
        "give an empty directory with --dir; if a first start was cut off here, remove what it left",
    ))
}

/// Free ports, held until all are known so that none is given twice.
fn free_addresses(nodes: u64) -> Result<Vec<SocketAddr>, Failure> {
    let mut held = Vec::new();
    let mut addresses = Vec::new();
    for _ in 0..nodes {
        let bound = UdpSocket::bind("127.0.0.1:0").and_then(|socket| Ok((socket.local_addr()?, socket)));
        let (address, socket): (SocketAddr, UdpSocket) = bound.map_err(|error| {
            Failure::new(Exit::Other, format!("no port on 127.0.0.1: {error}"), "check the loopback interface")
        })?;
        held.push(socket);
        addresses.push(address);
    }
    Ok(addresses)
}

fn make_node(
    directory: &Path,
    authority: &Authority,
    member: ConfiguredMember,
    members: &[ConfiguredMember],
    options: &LocalOptions,
) -> Result<(), Failure> {
    let name = format!("node-{}", member.id);
    let tls = issue(directory, authority, &Role::Node(member.id), &name)?;
    let mut settings = NodeSettings::new(member.id, directory.join(&name), member.address, tls);
    settings.members = members.to_vec();
    settings.segment_bytes = options.segment_bytes;
    let configuration = NodeConfiguration::checked(settings).map_err(|error| invalid(&error))?;
    write(&directory.join(format!("{name}.toml")), &configuration.render())?;
    init::format(&configuration, init::first_membership(&configuration))?;
    Ok(())
}

/// Makes what a node needs that is to join: files that are there already stay, its data directory must not.
pub(super) fn make_later(directory: &Path, id: NodeId, segment_bytes: u64) -> Result<Member, Failure> {
    let directory = &std::path::absolute(directory).map_err(|error| failure(directory, &error))?;
    let name = format!("node-{id}");
    let file = directory.join(format!("{name}.toml"));
    if !file.exists() {
        let read = |name: &str| pem::read_public(&directory.join(name)).map_err(certificate);
        let key = pem::read_key(&directory.join("ca.key")).map_err(certificate)?;
        let authority = Authority::from_pem(&read("ca.pem")?, &key).map_err(certificate)?;
        let tls = issue(directory, &authority, &Role::Node(id), &name)?;
        let address = free_addresses(1)?.remove(0);
        let mut settings = NodeSettings::new(id, directory.join(&name), address, tls);
        settings.members = Vec::new();
        settings.segment_bytes = segment_bytes;
        let configuration = NodeConfiguration::checked(settings).map_err(|error| invalid(&error))?;
        write(&file, &configuration.render())?;
    }
    let text = fs::read_to_string(&file).map_err(|error| failure(&file, &error))?;
    // A first member that comes back as a later one lists nobody any more.
    let text = text.split("\n[[member]]").next().unwrap_or_default().to_owned();
    write(&file, &text)?;
    let configuration = NodeConfiguration::load(&file, &[])?;
    Ok(init::format(&configuration, Membership::default())?.0)
}

/// Sets a key of a node's configuration, whether it stands there or not.
pub(super) fn set(file: &Path, key: &str, value: u64) -> Result<(), Failure> {
    let text = fs::read_to_string(file).map_err(|error| failure(file, &error))?;
    let is_other = |line: &&str| line.split('=').next().is_none_or(|name| name.trim() != key);
    let lines = text.lines().filter(is_other);
    write(file, &lines.fold(format!("{key} = {value}\n"), |text, line| text + line + "\n"))
}

fn make_client(
    directory: &Path,
    authority: &Authority,
    members: &[ConfiguredMember],
    role: Role,
    name: &str,
) -> Result<(), Failure> {
    let tls = issue(directory, authority, &role, name)?;
    let settings = ClientSettings {
        cluster: authority.cluster(),
        nodes: members.iter().map(|member| ClientNode { id: member.id, address: member.address }).collect(),
        certificate: tls.certificate,
        key: tls.key,
        ca: tls.ca,
        crl: None,
        forward: false,
    };
    let configuration = ClientConfiguration::checked(settings).map_err(|error| invalid(&error))?;
    write(&directory.join(format!("{name}.toml")), &configuration.render())
}

fn issue(directory: &Path, authority: &Authority, role: &Role, name: &str) -> Result<TlsFiles, Failure> {
    let issued = authority.issue(role, Validity::days(VALIDITY_DAYS)).map_err(certificate)?;
    let path = |ending: &str| -> PathBuf { directory.join(format!("{name}.{ending}")) };
    pem::write(&issued, &path("pem"), &path("key")).map_err(certificate)?;
    Ok(TlsFiles { certificate: path("pem"), key: path("key"), ca: directory.join("ca.pem"), crl: None })
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| failure(path, &error))
}

fn certificate(error: crate::net::CertificateError) -> Failure {
    failures::of_certificate(&error)
}

fn invalid(error: &Invalid) -> Failure {
    Failure::new(Exit::Usage, error.to_string(), error.next_step.clone())
}

fn failure(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Other, format!("{}: {error}", path.display()), "check the path and the rights of this user")
}
