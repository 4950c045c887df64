//! Hosts in network namespaces of their own, with a router between them that drops what it is told to.
//!
//! ```text
//!     host 0 (clients) ── veth ──┐            ┌── veth ── host 2 (node 2)
//!                                ├── router ──┤
//!     host 1 (node 1)  ── veth ──┘            └── veth ── host 3 (node 3), ..
//! ```
//!
//! A cut is a routing rule of the router, for one direction: what came in from one host for another goes into a
//! black hole, without an answer, as on a wire that is broken.
//!
//! Namespaces have no names: descriptors of this process and the processes in them are all that keeps them. So nothing
//! is left of them, however the tests end, once these processes have (nodes do with the tests, writers within a minute).

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::marker::PhantomData;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::processes::{alone, skip};

/// Where nodes listen, each on its own host.
const PORT: u16 = 7400;
/// Host 0, where the clients are.
pub const CLIENTS: u64 = 0;

/// The router and its hosts.
pub struct Net {
    router: OwnedFd,
    hosts: Vec<OwnedFd>,
    /// The priority of the next rule; those from [`FIRST_RULE`] on are in force.
    next_rule: u32,
}

const FIRST_RULE: u32 = 100;

impl Net {
    /// With hosts 0 to `last`, all of which reach each other.
    pub fn make(last: u64) -> Result<Net, String> {
        let router = namespace()?;
        let hosts = (0..=last).map(|_| namespace()).collect::<Result<Vec<_>, _>>()?;
        let net = Net { router, hosts, next_rule: FIRST_RULE };
        let mut links = "link set lo up\n".to_owned();
        for (host, space) in net.hosts.iter().enumerate() {
            let other_end = format!("/proc/{}/fd/{}", std::process::id(), space.as_raw_fd());
            writeln!(links, "link add v{host} type veth peer name eth0 netns {other_end}").expect("a string grows");
            writeln!(links, "addr add 10.77.{host}.1/24 dev v{host}\nlink set v{host} up").expect("a string grows");
        }
        {
            let _inside = Inside::enter(&net.router)?;
            ip(&links)?;
            let forward = "/proc/sys/net/ipv4/ip_forward";
            std::fs::write(forward, "1").map_err(|error| format!("{forward}: {error}"))?;
        }
        for (host, space) in net.hosts.iter().enumerate() {
            let _inside = Inside::enter(space)?;
            let way_out = format!("route add default via 10.77.{host}.1");
            ip(&format!("link set lo up\naddr add 10.77.{host}.2/24 dev eth0\nlink set eth0 up\n{way_out}\n"))?;
        }
        Ok(net)
    }

    /// Where the node on this host listens.
    pub fn address(host: u64) -> SocketAddr {
        let host = u8::try_from(host).expect("few hosts");
        SocketAddr::from((Ipv4Addr::new(10, 77, host, 2), PORT))
    }

    /// This thread, and what it starts, is on that host until the value is dropped.
    pub fn enter(&self, host: u64) -> Inside {
        Inside::enter(&self.hosts[host as usize]).unwrap_or_else(|error| panic!("host {host}: {error}"))
    }

    /// From here on nothing passes in any of these directions.
    pub fn cut(&mut self, directions: &[(u64, u64)]) {
        let mut rules = String::new();
        for (from, to) in directions {
            let (rule, to) = (self.next_rule, Net::address(*to).ip());
            writeln!(rules, "rule add priority {rule} iif v{from} to {to}/32 blackhole").expect("a string grows");
            self.next_rule += 1;
        }
        self.route(&rules);
    }

    /// Everything passes again.
    pub fn heal(&mut self) {
        let rules: String = (FIRST_RULE..self.next_rule).map(|rule| format!("rule del priority {rule}\n")).collect();
        self.next_rule = FIRST_RULE;
        self.route(&rules);
    }

    fn route(&self, rules: &str) {
        let _inside = Inside::enter(&self.router).unwrap_or_else(|error| panic!("the router: {error}"));
        ip(rules).unwrap_or_else(|error| panic!("{error}"));
    }
}

/// A thread that is in another namespace; dropped, it is back where it was.
pub struct Inside {
    back: OwnedFd,
    /// Of this thread alone.
    _here: PhantomData<*const ()>,
}

impl Inside {
    fn enter(space: &OwnedFd) -> Result<Inside, String> {
        let inside = Inside { back: present()?, _here: PhantomData };
        go(space)?;
        Ok(inside)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        go(&self.back).expect("where a thread came from it may go");
    }
}

/// A new namespace, with nothing in it.
fn namespace() -> Result<OwnedFd, String> {
    let back = present()?;
    // SAFETY: of all that threads share, descriptors among it, only the network of this one changes.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(|error| format!("no network namespaces: {error}"))?;
    // From here on there is a way that was gone, and is to be gone back.
    let _back = Inside { back, _here: PhantomData };
    present()
}

/// The namespace of this thread.
fn present() -> Result<OwnedFd, String> {
    let path = "/proc/thread-self/ns/net";
    File::open(path).map(OwnedFd::from).map_err(|error| format!("{path}: {error}"))
}

fn go(space: &OwnedFd) -> Result<(), String> {
    let moved = move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network));
    moved.map_err(|error| format!("a network namespace cannot be entered: {error}"))
}

/// Runs lines of `ip` where this thread is.
fn ip(lines: &str) -> Result<(), String> {
    let mut command = Command::new("ip");
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("ip: {error}"))?;
    // If it ends before it has read all, its exit code says so.
    child.stdin.take().expect("it is piped").write_all(lines.as_bytes()).ok();
    let output = child.wait_with_output().map_err(|error| format!("ip: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("ip: {}", String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default())),
    }
}

/// The network, or `None` where this machine does not allow it, which is then told.
pub fn make_or_skip(name: &str, last: u64) -> Option<Net> {
    let needs = "root ip";
    let tell = |reason: &str, needs: &str| skip(name, reason, needs);
    if !rustix::process::geteuid().is_root() {
        tell("not root", needs);
        return None;
    }
    if Command::new("ip").arg("-V").output().is_err() {
        tell("no ip", needs);
        return None;
    }
    // A right that a container withholds is seen only in the trial.
    let made = Net::make(1).and_then(|mut net| {
        let _inside = Inside::enter(&net.router)?;
        net.next_rule += 1;
        ip(&format!("rule add priority {FIRST_RULE} iif v0 to 10.77.1.2/32 blackhole\n"))
    });
    match made.and_then(|()| Net::make(last)) {
        Ok(net) => Some(net),
        Err(reason) => {
            tell(&reason, "");
            None
        }
    }
}

#[test]
fn a_cut_stops_one_direction_and_no_other_until_it_is_healed() {
    let _alone = alone();
    let Some(mut net) = make_or_skip("netns", 3) else { return };
    let socket = |host: u64| {
        let _inside = net.enter(host);
        let socket = UdpSocket::bind(Net::address(host)).expect("the port is free there");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout can be set");
        socket
    };
    let sockets: Vec<UdpSocket> = (0..=3).map(socket).collect();
    let arriving = || -> Vec<(u64, u64)> {
        let pairs = (0..=3u64).flat_map(|from| (0..=3u64).map(move |to| (from, to)));
        let arrives = |(from, to): &(u64, u64)| {
            let text = format!("{from} to {to}");
            sockets[*from as usize].send_to(text.as_bytes(), Net::address(*to)).expect("it is sent");
            let mut room = [0; 16];
            let received = sockets[*to as usize].recv_from(&mut room);
            received.is_ok_and(|(bytes, by)| room[..bytes] == *text.as_bytes() && by == Net::address(*from))
        };
        pairs.filter(|(from, to)| from != to).filter(arrives).collect()
    };
    let all = arriving();
    assert_eq!(all.len(), 12);
    let but = |cut: &[(u64, u64)]| all.iter().copied().filter(|pair| !cut.contains(pair)).collect::<Vec<_>>();
    net.cut(&[(1, 2)]);
    assert_eq!(arriving(), but(&[(1, 2)]));
    net.cut(&[(3, 1), (0, 3)]);
    assert_eq!(arriving(), but(&[(1, 2), (3, 1), (0, 3)]));
    net.heal();
    assert_eq!(arriving(), all);
}
