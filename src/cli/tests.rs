use std::path::Path;

use clap::{CommandFactory, Parser};

use super::exit::{Exit, Failure};
use super::{Arguments, failures};
use crate::node::driver::Stopped;
use crate::node::run::RunError;
use crate::raft::{Contradicted, Contradiction};
use crate::sim::{Options, Simulation};
use crate::types::{Index, LogId, NodeId, Term};
use crate::{disk, wal};

#[test]
fn the_declared_arguments_are_consistent() {
    Arguments::command().debug_assert();
}

#[test]
fn every_sub_command_says_what_it_is_for() {
    for command in Arguments::command().get_subcommands() {
        assert!(command.get_about().is_some(), "{} has no description", command.get_name());
    }
}

/// Half of the commands said `--dir` and the other half `--directory`.
#[test]
fn a_directory_may_be_given_by_either_name() {
    let commands = ["dev", "demo", "doctor", "bench disk", "bench wal", "bench cluster", "cert ca", "cert node 1"];
    for (command, name) in commands.into_iter().flat_map(|command| ["--dir", "--directory"].map(|name| (command, name)))
    {
        let words = ["trilith"].into_iter().chain(command.split(' ')).chain([name, "D"]);
        Arguments::try_parse_from(words).unwrap_or_else(|error| panic!("{command} {name}: {error}"));
    }
}

#[test]
fn an_unknown_command_is_refused() {
    let error = Arguments::try_parse_from(["trilith", "docter"]).unwrap_err();
    assert_eq!(error.exit_code(), Exit::Usage as i32);
    assert!(error.to_string().contains("doctor"), "{error}");
}

#[test]
fn exit_codes_are_those_of_the_design() {
    let codes: Vec<u8> = Exit::ALL.iter().map(|exit| *exit as u8).collect();
    assert_eq!(codes, [0, 1, 2, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21]);
    assert_eq!(crate::disk::MAP_FAILED_EXIT, Exit::DiskFailed as u8);
}

#[test]
fn exit_codes_are_documented() {
    let page = include_str!("../../docs/operations.md");
    for exit in Exit::ALL {
        let row = format!("| {} | {} |", *exit as u8, exit.meaning());
        assert!(page.contains(&row), "docs/operations.md lacks the row {row}");
    }
}

#[test]
fn a_failure_prints_what_is_wrong_and_what_to_do() {
    let failure = Failure::new(Exit::NoSpace, "the disk is full", "free some space");
    assert_eq!(failure.to_string(), "error: the disk is full\nnext: free some space");
}

/// A node whose file system went away while it read called its log corrupt, though only the device had failed.
#[test]
fn a_read_refused_by_the_device_is_no_corruption() {
    let refused = disk::Error::new(disk::Operation::Read, "segment", std::io::Error::from_raw_os_error(5));
    let stopped = RunError::Stopped(Stopped::Read(wal::Error::Disk(refused)));
    assert_eq!(failures::of_node(&stopped, Path::new("data")).exit, Exit::DiskFailed);
}

/// What `trilith sim --seed 21 --nodes 3` prints, in every build: .ci/run compares the release binary with the same
/// file. A change of what nodes do changes it; docs/testing.md says how it is renewed.
#[test]
fn a_seed_is_the_same_run_in_every_build() {
    let report = Simulation::run(21, &Options::drawn_for(3, 21)).expect("no rule is broken");
    assert_eq!(super::sim::table(&[report]).trim_end(), include_str!("../sim/golden.txt").trim_end());
}

#[test]
fn what_a_peer_contradicts_ends_with_10_and_a_documented_step() {
    let page = include_str!("../../docs/operations.md");
    for what in [
        Contradicted::TwoLeaders { leader: NodeId(1) },
        Contradicted::MatchedBeyond { said: Index(9), last: LogId::ZERO },
        Contradicted::OutOfRange { number: u64::MAX },
    ] {
        let stopped = RunError::Stopped(Stopped::Contradicted(Contradiction { peer: NodeId(2), term: Term(3), what }));
        let failure = failures::of_node(&stopped, Path::new("data"));
        assert_eq!(failure.exit, Exit::Corrupt);
        assert!(failure.message.starts_with("data: node 2 contradicts what is known here in term 3: "), "{failure}");
        assert!(page.contains(&failure.next_step), "docs/operations.md lacks the step: {failure}");
    }
}

/// What a text tells a person to type is there to be typed.
#[test]
fn every_command_that_a_text_names_is_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut waiting, mut unknown, mut count) =
        (vec![root.join("src"), root.join("docs"), root.join("README.md")], vec![], 0);
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(path.read_dir().unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        // What is not UTF-8 is data.
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        for named in text.split("`trilith ").skip(1) {
            count += 1;
            if !is_command(named.split(['`', '\n']).next().unwrap()) {
                unknown.push(format!("{}: trilith {}", path.display(), named.chars().take(30).collect::<String>()));
            }
        }
    }
    assert!(count > 100 && unknown.is_empty(), "{count}: {unknown:#?}");
}

/// Whether it begins with a command and, where that has some, one of its sub-commands. Options and values end it.
fn is_command(text: &str) -> bool {
    let mut command = Arguments::command();
    for word in text.split(' ') {
        if command.get_subcommands().next().is_none() {
            return true;
        }
        let word: String = word.chars().take_while(|letter| letter.is_ascii_lowercase()).collect();
        if word.is_empty() {
            return true;
        }
        let Some(found) = command.find_subcommand(&word).cloned() else { return false };
        command = found;
    }
    true
}
