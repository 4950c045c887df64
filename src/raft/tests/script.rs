//! Golden scripts: one situation each, told in commands, with everything that happened as the output.
//!
//! `UPDATE_GOLDENFILES=1 cargo test raft` writes the outputs anew; what changed is then reviewed. Each message that
//! arrives or is lost has a line, and each persist, whoever lets it happen; only heartbeats that change nothing are
//! counted where time passes (see [`trace`]). The commands:
//!
//! | command | what it does |
//! |---|---|
//! | `cluster [voters=3] [learners=0] [window=BYTES] [messages=COUNT] [append=BYTES] [cache=BYTES] [uncommitted=BYTES] [leases=PERCENT]` | new nodes with empty disks; with leases for clocks that differ by so much |
//! | `preset NODE TERMS [term=T] [vote=N]` | stop the node, put no-ops of these terms (`114`) on its disk, start it |
//! | `tick NODE [COUNT]` | time passes at one node |
//! | `campaign NODE` | time passes there until it stands for election |
//! | `run [COUNT]` | time passes everywhere; disks and network do what they have to |
//! | `stabilize` | the same without time |
//! | `deliver [from=A] [to=B] [count=N] [order=reverse]`, `drop`, `duplicate` | messages under way, in order of sending |
//! | `persist NODE [COUNT]` | the oldest persist becomes durable |
//! | `apply NODE`, `fetch NODE` | the state machine; the reader of the log |
//! | `snapshot NODE`, `compact NODE INDEX` | of what was applied; the log begins behind that entry |
//! | `hold NODE`, `install NODE` | what is offered arrives late there; it has arrived |
//! | `cut A B`, `cut from=A to=B`, `heal` | the network |
//! | `crash NODE`, `start NODE` | power |
//! | `stall NODE`, `resume NODE` | a disk that finishes no flush |
//! | `unreadable NODE FOLLOWER INDEX` | its log does not give what the follower needs from there on |
//! | `stop NODE TICKS` | the process is stopped for so long: its clock goes on, and is not read |
//! | `propose NODE DATA…`, `read NODE TOKEN`, `transfer NODE TO` | what callers ask |
//! | `change NODE [add=IDS] [join=IDS] [promote=IDS] [remove=IDS]` | members change; `join` is `add` with promotion |
//! | `lease NODE` | a read by lease: of what index, and whether the lease holds when the state was read |
//! | `status [NODE…]`, `logs`, `members`, `network` | look |

use std::error::Error;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;
use goldenscript::{Argument, Command, Context, Runner};

use crate::raft::{Change, Changed, Event, Input, LeaseOptions, ReadToken, Role};
use crate::sim::replicas::Step;
use crate::types::{Data, Entry, HardState, Index, LogId, NodeId, Payload, Term};

use super::cluster::{self, Cluster, limits_default};
use super::words::{show, show_hard_state, show_persist};
use trace::{Trace, what_happened};

mod trace;

struct Script {
    cluster: Cluster,
    /// Of the present command.
    output: String,
}

type Outcome<T> = Result<T, Box<dyn Error>>;

fn run(name: &str) {
    let mut script = Script { cluster: Cluster::new(3, 0, limits_default(), 1), output: String::new() };
    let path = format!("{}/src/raft/scripts/{name}", env!("CARGO_MANIFEST_DIR"));
    goldenscript::run(&mut script, path).expect("the script runs");
}

/// How what a script tells differs from what is written in it, if it does: where the trace parts, or what panicked.
pub fn difference(name: &str) -> Option<String> {
    let path = format!("{}/src/raft/scripts/{name}", env!("CARGO_MANIFEST_DIR"));
    let written = std::fs::read_to_string(path).expect("the script is there");
    let mut script = Script { cluster: Cluster::new(3, 0, limits_default(), 1), output: String::new() };
    let told = catch_unwind(AssertUnwindSafe(|| goldenscript::generate(&mut script, &written)));
    let told = match told {
        Err(panic) => return panic.downcast_ref::<String>().cloned().or(Some("it panics".to_owned())),
        Ok(Err(error)) => return Some(error.to_string()),
        Ok(Ok(told)) => told,
    };
    let lines = told.lines().zip(written.lines()).find(|(told, written)| told != written);
    lines.map(|(told, written)| format!("`{}` and not `{}`", told.trim(), written.trim()))
}

macro_rules! scripts {
    ($($name:ident),* $(,)?) => {$(
        #[test]
        fn $name() {
            run(stringify!($name));
        }
    )*
        pub const NAMES: &[&str] = &[$(stringify!($name)),*];

        /// No script lies in the folder without being run.
        #[test]
        fn all_scripts_are_listed() {
            let folder = format!("{}/src/raft/scripts", env!("CARGO_MANIFEST_DIR"));
            for file in std::fs::read_dir(folder).expect("the folder is there") {
                let name = file.expect("it can be listed").file_name();
                assert!(NAMES.iter().any(|listed| *listed == name), "{name:?} is not run");
            }
        }
    };
}

scripts! {
    append_lost_duplicated_reordered,
    append_window,
    append_window_lost,
    change_add_and_promote,
    change_before_own_entry,
    change_farewell,
    change_grow_from_one,
    change_joint_under_partition,
    change_one_at_a_time,
    change_promote_by_itself,
    change_removal_in_one_log,
    change_remove_follower,
    change_remove_leader,
    change_remove_leader_under_load,
    change_removed_disturbs_nobody,
    change_replace_leader,
    change_truncated,
    check_quorum,
    commit_after_lost_answer,
    conflict_hints,
    damaged_log,
    damaged_log_alone,
    divergent_tail,
    durable_after_term_change,
    election,
    election_tie,
    election_timer,
    fetch,
    figure_7,
    figure_8,
    heartbeat_backoff,
    leader_not_heard,
    learner,
    noop_and_commit,
    overload,
    read_lease,
    read_lease_drift,
    read_lease_restart,
    read_lease_transfer,
    pre_vote,
    probe_lost,
    read_follower,
    read_leader,
    read_stale_leader,
    reject_storm,
    restart_between_vote_and_answer,
    single_node,
    slow_disk,
    slow_disk_shared,
    snapshot_answered_late,
    snapshot_at_the_end,
    snapshot_behind_the_log,
    snapshot_of_another_leader,
    snapshot_of_members,
    snapshot_of_one_removed,
    snapshot_offers_lost_doubled_late,
    snapshot_older_than_the_log,
    snapshot_over_differing_entries,
    snapshot_restarts,
    snapshot_slow_follower,
    snapshot_transfer,
    transfer,
    transfer_lost_under_reads,
    vote_of_unaware_voter,
}

impl Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, _context: &Context) -> Outcome<String> {
        self.output.clear();
        self.execute(command)?;
        self.tell_what_happened();
        Ok(std::mem::take(&mut self.output))
    }
}

impl Script {
    fn execute(&mut self, command: &Command) -> Outcome<()> {
        match command.name.as_str() {
            "cluster" => self.new_cluster(command)?,
            "preset" => self.preset(command)?,
            "tick" => self.tick(node(command, 0)?, number(command, 1, 1)?),
            "campaign" => self.campaign(node(command, 0)?)?,
            "run" => self.run_all(Some(number(command, 0, 1)? as u32)),
            "stabilize" => self.run_all(None),
            "deliver" | "drop" | "duplicate" => self.messages(command)?,
            "persist" => self.persist(node(command, 0)?, number(command, 1, 1)?)?,
            "stop" => self.stop(node(command, 0)?, number(command, 1, 1)?),
            "apply" => self.cluster.apply(node(command, 0)?, number(command, 1, 1 << 40)?),
            "fetch" => self.cluster.fetch(node(command, 0)?, false),
            "hold" => drop(self.cluster.fetches_long.insert(node(command, 0)?)),
            "snapshot" | "compact" | "install" => self.snapshots(command)?,
            "cut" => self.cut(command)?,
            "heal" => self.cluster.cut.clear(),
            "crash" => self.cluster.crash(node(command, 0)?, 0),
            "start" => self.cluster.start(node(command, 0)?),
            "stall" => drop(self.cluster.stalled.insert(node(command, 0)?)),
            "resume" => drop(self.cluster.stalled.remove(&node(command, 0)?)),
            "propose" | "read" | "transfer" => self.ask(command)?,
            "unreadable" => self.unreadable(command)?,
            "change" => self.change(command)?,
            "lease" => self.lease(node(command, 0)?)?,
            "status" => self.status(command)?,
            "logs" => self.logs()?,
            "members" => self.members()?,
            "network" => self.show_network()?,
            unknown => return Err(format!("no such command: {unknown}").into()),
        }
        Ok(())
    }

    fn new_cluster(&mut self, command: &Command) -> Outcome<()> {
        let mut limits = limits_default();
        let voters = key(command, "voters", 3)?;
        let learners = key(command, "learners", 0)?;
        limits.window_bytes = key(command, "window", limits.window_bytes as u64)? as usize;
        limits.window_messages = key(command, "messages", limits.window_messages as u64)? as usize;
        limits.append_bytes_max = key(command, "append", limits.append_bytes_max as u64)? as usize;
        limits.cache_bytes_max = key(command, "cache", limits.cache_bytes_max as u64)? as usize;
        limits.uncommitted_bytes_max = limits.uncommitted_bytes_max.min(limits.cache_bytes_max);
        limits.uncommitted_bytes_max = key(command, "uncommitted", limits.uncommitted_bytes_max as u64)? as usize;
        self.cluster = Cluster::new(voters, learners, limits, 1);
        if text_key(command, "leases").is_some() {
            let (promise, rest) = (Duration::from_millis(300), Duration::from_millis(600));
            let drift_percent = key(command, "leases", 0)? as u32;
            self.cluster.leases = Some(LeaseOptions { promise, rest, drift_percent });
            for id in (1..=voters + learners).map(NodeId) {
                self.cluster.crash(id, 0);
                self.cluster.start(id);
            }
        }
        Ok(())
    }

    fn preset(&mut self, command: &Command) -> Outcome<()> {
        let id = node(command, 0)?;
        let terms = digits(positional(command, 1).unwrap_or_default())?;
        let last = terms.last().copied().unwrap_or(0);
        let vote = Some(NodeId(key(command, "vote", 0)?)).filter(|vote| vote.0 > 0);
        self.cluster.crash(id, 0);
        let disk = &mut self.cluster.nodes.get_mut(&id).ok_or("no such node")?.disk;
        disk.hard_state = HardState { term: Term(key(command, "term", last)?), vote };
        let entry = |(term, index)| Entry { id: LogId::new(Term(term), Index(index)), payload: Payload::Noop };
        disk.entries = terms.into_iter().zip(1..).map(entry).collect();
        self.cluster.start(id);
        Ok(())
    }

    /// So many ticks, or what can be done without time.
    fn run_all(&mut self, ticks: Option<u32>) {
        let mut trace = Trace::new(&mut self.output);
        let mut look = |cluster: &mut Cluster, step: Step<'_>| trace.look(cluster, step);
        match ticks {
            Some(ticks) => self.cluster.run_watched(ticks, &mut look),
            None => self.cluster.settle_all_watched(&mut look),
        }
        trace.end(&mut self.cluster);
    }

    fn stop(&mut self, id: NodeId, ticks: u64) {
        let node = self.cluster.nodes.get_mut(&id).expect("a member");
        node.clock.0 += crate::limits::TICK * ticks as u32;
    }

    fn tick(&mut self, id: NodeId, count: u64) {
        (0..count).for_each(|_| self.cluster.tick(id));
    }

    fn campaign(&mut self, id: NodeId) -> Outcome<()> {
        for _ in 0..120 {
            self.cluster.tick(id);
            if matches!(self.cluster.replica(id).status().role, Role::PreCandidate | Role::Candidate) {
                return Ok(());
            }
        }
        Err("it does not stand".into())
    }

    fn persist(&mut self, id: NodeId, count: u64) -> Outcome<()> {
        for _ in 0..count {
            let persist = self.cluster.nodes[&id].persists.front().ok_or("nothing to persist")?;
            writeln!(self.output, "{}", show_persist(id, persist))?;
            self.cluster.persist(id);
        }
        Ok(())
    }

    fn snapshots(&mut self, command: &Command) -> Outcome<()> {
        let id = node(command, 0)?;
        match command.name.as_str() {
            "snapshot" if !self.cluster.snapshot(id) => return Err("there is one, or nothing is applied".into()),
            "snapshot" => {}
            "compact" => self.cluster.compact(id, Index(number(command, 1, 0)?)),
            _ => self.cluster.install(id),
        }
        let disk = &self.cluster.nodes[&id].disk;
        let point = disk.snapshot.as_ref().map_or("none".into(), |taken| taken.point.to_string());
        writeln!(self.output, "{id}: snapshot {point}, log after {}", disk.before_first)?;
        Ok(())
    }

    fn messages(&mut self, command: &Command) -> Outcome<()> {
        let (from, to) = (key(command, "from", 0)?, key(command, "to", 0)?);
        let count = key(command, "count", u64::MAX)? as usize;
        let (mut chosen, mut rest) = (Vec::new(), Vec::new());
        for message in std::mem::take(&mut self.cluster.network) {
            let wanted = (from == 0 || message.from.0 == from) && (to == 0 || message.to.0 == to);
            if wanted && chosen.len() < count { chosen.push(message) } else { rest.push(message) }
        }
        self.cluster.network.extend(rest);
        if text_key(command, "order") == Some("reverse") {
            chosen.reverse();
        }
        for message in chosen {
            match command.name.as_str() {
                "drop" => writeln!(self.output, "dropped: {}", show(&message))?,
                "duplicate" => self.cluster.network.extend([message.clone(), message]),
                _ => {
                    let line = show(&message);
                    let arrives = self.cluster.deliver(message);
                    writeln!(self.output, "{line}{}", if arrives { "" } else { " (lost)" })?;
                    self.tell_what_happened();
                }
            }
        }
        Ok(())
    }

    fn cut(&mut self, command: &Command) -> Outcome<()> {
        if let (Some(_), Some(_)) = (positional(command, 0), positional(command, 1)) {
            let (left, right) = (node(command, 0)?, node(command, 1)?);
            self.cluster.cut.extend([(left, right), (right, left)]);
        } else {
            let (from, to) = (key(command, "from", 0)?, key(command, "to", 0)?);
            self.cluster.cut.insert((NodeId(from), NodeId(to)));
        }
        Ok(())
    }

    fn ask(&mut self, command: &Command) -> Outcome<()> {
        let id = node(command, 0)?;
        let refused = match command.name.as_str() {
            "read" => self.cluster.read(id, ReadToken(number(command, 1, 0)?)).err(),
            "transfer" => {
                let refused = self.cluster.replica_mut(id).transfer(node(command, 1)?).err();
                self.cluster.settle(id);
                refused
            }
            _ => {
                let payloads = self.payloads(command)?;
                self.cluster.propose(id, payloads).err()
            }
        };
        if let Some(refused) = refused {
            writeln!(self.output, "refused: {refused:?}")?;
        }
        Ok(())
    }

    fn unreadable(&mut self, command: &Command) -> Outcome<()> {
        let (id, follower, index) = (node(command, 0)?, node(command, 1)?, Index(number(command, 2, 0)?));
        if !self.cluster.replica_mut(id).leave_damaged_log(follower, index) {
            writeln!(self.output, "{id} hands nothing over")?;
        }
        self.cluster.settle(id);
        Ok(())
    }

    fn lease(&mut self, id: NodeId) -> Outcome<()> {
        let committed = self.cluster.committed();
        let asked = self.cluster.replica(id).lease_index();
        // The state is read, then the clock.
        let reading = self.cluster.nodes[&id].clock;
        self.cluster.input(id, Input::Clock(reading));
        let holds = self.cluster.replica(id).holds_lease();
        match asked {
            Err(refused) => writeln!(self.output, "refused: {refused:?}")?,
            Ok(Some(index)) if holds && index < committed => {
                writeln!(self.output, "{id} reads at {index} by lease, and {committed} is committed: STALE")?
            }
            Ok(Some(index)) if holds => writeln!(self.output, "{id} reads at {index} by lease")?,
            Ok(_) => writeln!(self.output, "{id} has no lease: it asks the others")?,
        }
        Ok(())
    }

    fn change(&mut self, command: &Command) -> Outcome<()> {
        let id = node(command, 0)?;
        let mut wanted = Vec::new();
        for kind in ["add", "join", "promote", "remove"] {
            for node in digits(text_key(command, kind).unwrap_or_default())?.into_iter().map(NodeId) {
                wanted.push(match kind {
                    "promote" => Change::Promote { node },
                    "remove" => Change::Remove { node },
                    _ => Change::Add { member: cluster::member(node.0), promote: kind == "join" },
                });
                if !self.cluster.nodes.contains_key(&node) {
                    self.cluster.add(node);
                }
            }
        }
        let changed = self.cluster.change(id, &wanted);
        match changed {
            Ok(Changed::Already) => writeln!(self.output, "it is so already")?,
            Ok(Changed::Begun { index }) => writeln!(self.output, "begun by entry {index}")?,
            Err(refused) => writeln!(self.output, "refused: {refused}")?,
        }
        Ok(())
    }

    fn payloads(&mut self, command: &Command) -> Outcome<Vec<Payload>> {
        let data = (1..).map_while(|place| positional(command, place));
        Ok(data.map(|text| Payload::Data(Data::new(Bytes::copy_from_slice(text.as_bytes())))).collect())
    }

    fn status(&mut self, command: &Command) -> Outcome<()> {
        let asked: Vec<u64> =
            (0..).map_while(|place| positional(command, place)).map(str::parse).collect::<Result<_, _>>()?;
        for (id, node) in &self.cluster.nodes {
            if !asked.is_empty() && !asked.contains(&id.0) {
                continue;
            }
            let Some(replica) = &node.replica else {
                writeln!(self.output, "{id} is down")?;
                continue;
            };
            let status = replica.status();
            let leader = status.leader.map_or("-".into(), |leader| leader.to_string());
            writeln!(
                self.output,
                "{id} {:?} {} leader {leader} last {} durable {} commit {}",
                status.role,
                show_hard_state(status.hard_state),
                status.last,
                status.durable,
                status.commit
            )?;
        }
        Ok(())
    }

    fn logs(&mut self) -> Outcome<()> {
        for (id, node) in &self.cluster.nodes {
            let Some(replica) = &node.replica else { continue };
            let terms = (1..=replica.status().last.index.0).filter_map(|index| replica.term_at(Index(index)));
            let terms: Vec<String> = terms.map(|term| term.to_string()).collect();
            writeln!(self.output, "{id}: {}", terms.join(" "))?;
        }
        Ok(())
    }

    fn members(&mut self) -> Outcome<()> {
        let show = |nodes: Vec<NodeId>| nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join(" ");
        for (id, node) in &self.cluster.nodes {
            let Some(replica) = &node.replica else { continue };
            let membership = replica.membership();
            let ids = membership.members.iter().map(|member| member.id);
            let learners: Vec<NodeId> = ids.filter(|id| !membership.is_voter(*id)).collect();
            write!(self.output, "{id}: voters {}", show(membership.voters.iter().copied().collect()))?;
            if membership.is_joint() {
                write!(self.output, ", outgoing {}", show(membership.voters_outgoing.iter().copied().collect()))?;
            }
            if !learners.is_empty() {
                write!(self.output, ", learners {}", show(learners))?;
            }
            writeln!(self.output)?;
        }
        Ok(())
    }

    fn show_network(&mut self) -> Outcome<()> {
        for message in &self.cluster.network {
            writeln!(self.output, "{}", show(message))?;
        }
        Ok(())
    }

    /// Events and answers since the last time.
    fn tell_what_happened(&mut self) {
        for line in what_happened(&mut self.cluster) {
            self.output.push_str(&line);
            self.output.push('\n');
        }
    }
}

fn show_event(event: &Event) -> String {
    match event {
        Event::RoleChanged { role, term } => format!("is {role:?} in term {term}"),
        Event::LeaderChanged { leader: Some(leader), term } => format!("follows leader {leader} of term {term}"),
        Event::LeaderChanged { leader: None, term } => format!("knows no leader in term {term}"),
        Event::QuorumLost { term } => format!("hears no majority in term {term}"),
        Event::DiskStalls { to: Some(to) } => format!("hands over to {to}: its disk stalls"),
        Event::LogDamaged { to, follower, index } => {
            format!("hands over to {to}: {index}, which {follower} needs, cannot be read")
        }
        Event::SegmentHangs { to } => format!("hands over to {to}: no segment is made"),
        Event::DiskStalls { to: None } => "steps down: its disk stalls".to_owned(),
        Event::Replaced { from } => format!("replaces its entries from {from} on"),
        Event::SnapshotNeeded { peer } => format!("has no log that {peer} needs"),
        Event::SnapshotOffered { from, base } => format!("needs the snapshot at {} of {from}", base.point),
        Event::MembershipChanged { index } => format!("has the members of entry {index}"),
        Event::MembershipCommitted { index } => format!("knows the members of entry {index} to be committed"),
        Event::VoiceLost { peer, acknowledged, holds } => {
            format!("takes the voice of {peer}, which had acknowledged {acknowledged} and holds {holds}")
        }
        Event::Contradiction(contradiction) => format!("ends: {contradiction}"),
    }
}

/// `114` is 1, 1, 4.
fn digits(text: &str) -> Outcome<Vec<u64>> {
    Ok(text.chars().map(|digit| digit.to_digit(10).map(u64::from).ok_or("not a digit")).collect::<Result<_, _>>()?)
}

fn positional(command: &Command, place: usize) -> Option<&str> {
    let mut values = command.args.iter().filter_map(|argument| match argument {
        Argument::Positional(value) => Some(value.as_str()),
        _ => None,
    });
    values.nth(place)
}

fn text_key<'a>(command: &'a Command, name: &str) -> Option<&'a str> {
    command.args.iter().find_map(|argument| match argument {
        Argument::KeyValue(key, value) if key == name => Some(value.as_str()),
        _ => None,
    })
}

fn key(command: &Command, name: &str, default: u64) -> Outcome<u64> {
    Ok(text_key(command, name).map(str::parse).transpose()?.unwrap_or(default))
}

fn number(command: &Command, place: usize, default: u64) -> Outcome<u64> {
    Ok(positional(command, place).map(str::parse).transpose()?.unwrap_or(default))
}

fn node(command: &Command, place: usize) -> Outcome<NodeId> {
    Ok(NodeId(positional(command, place).ok_or("which node?")?.parse()?))
}
