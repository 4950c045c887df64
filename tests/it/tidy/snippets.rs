//! The checker checked: for each rule a tree that breaks it and is caught, and one that looks alike and passes.

use std::collections::BTreeMap;

use super::tree::Tree;
use super::{Rule, Violation, check_sources, repository};

const MANIFEST: &str = "
[dependencies]
bytes = '1'
imbl = '7'
rustix = '1'
tokio = '1'
tokio-uring = '0.5'
tracing = '0.1'
[dev-dependencies]
proptest = '1'
";

fn files(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    files.iter().map(|(file, text)| (file.to_string(), text.to_string())).collect()
}

fn violations(sources: &[(&str, &str)]) -> Vec<Violation> {
    check_sources(&Tree::new(&files(sources), repository::dependencies(MANIFEST)))
}

/// What is found, as (rule, file, line).
#[track_caller]
fn finds(sources: &[(&str, &str)], expected: &[(Rule, &str, usize)]) {
    let found = violations(sources);
    let mut places: Vec<(Rule, &str, usize)> =
        found.iter().map(|violation| (violation.rule, violation.file.as_str(), violation.line)).collect();
    places.dedup();
    assert_eq!(places, expected, "{found:#?}");
}

/// One file that breaks one rule on one line.
#[track_caller]
fn finds_one(file: &str, text: &str, rule: Rule, line: usize) {
    finds(&[(file, text)], &[(rule, file, line)]);
}

#[track_caller]
fn passes(sources: &[(&str, &str)]) {
    finds(sources, &[]);
}

#[test]
fn a_clean_tree_passes() {
    passes(&[
        ("src/lib.rs", "pub mod raft;\npub mod types;\npub mod wal;\npub use types::Index;\n"),
        ("src/main.rs", "fn main() -> std::process::ExitCode { trilith::cli::run() }\n"),
        ("src/types.rs", "pub struct Index(pub u64);\n"),
        ("src/raft/mod.rs", "//! The protocol.\nmod log;\nuse crate::types::Index;\npub fn a(_: Index) { log::b() }\n"),
        ("src/raft/log.rs", "use super::*;\nuse crate::Index as I;\npub fn b() { let _: I; a(I(1)); }\n"),
        ("src/wal/mod.rs", "//! The log.\npub mod handle;\n#[cfg(test)]\nmod tests;\npub struct Core;\n"),
        ("src/wal/handle.rs", "use std::time::Instant;\nuse super::Core;\npub fn c(_: Core) { Instant::now(); }\n"),
        ("src/wal/tests.rs", "use proptest as p;\nuse crate::sim::Disk;\nfn d() { p::x(); Disk.read().unwrap(); }\n"),
    ]);
}

#[test]
fn imports_are_seen_however_they_are_written() {
    let upward = [
        "use crate::net::Endpoint;",
        "use crate::net;",
        "use crate::net::*;",
        "use crate::{types::Index, net::Endpoint};",
        "use crate::{types::{self, Index}, net::{self, Endpoint}};",
        "use crate::net as n;",
        "use super::super::net::Endpoint;",
        "use super::super::{net::Endpoint};",
        "pub use crate::net::Endpoint;",
        "pub(crate) use crate::net::Endpoint as Door;",
        "use trilith::net::Endpoint;",
        "fn f() { use crate::net::Endpoint; }",
        "fn f() { crate::net::open() }",
        "fn f() { super::super::net::open() }",
        "fn f(_: crate::net::Endpoint) {}",
        "fn f(_: Vec<Option<crate::net::Endpoint>>) {}",
        "fn f() { let crate::net::Endpoint { .. } = g(); }",
        "impl crate::net::Door for X {}",
        "fn f<T: crate::net::Door>() {}",
        "fn f() { assert_eq!(1, crate::net::open()) }",
        "fn f() { g!(x => { use crate::{types::Index, net::Endpoint}; }) }",
        "macro_rules! m { () => { $crate::net::open() } }",
        "#[derive(crate::net::Door)] struct S;",
        "mod inner { fn f() { super::super::super::net::open() } }",
    ];
    for text in upward {
        finds_one("src/wal/writer.rs", text, Rule::Import, 1);
    }
}

#[test]
fn an_alias_is_followed() {
    let text = "use crate as c;\nfn f() { c::net::open() }\n";
    finds_one("src/wal/writer.rs", text, Rule::Import, 2);
    let text = "use crate::net as n;\nfn f() { n::open() }\n";
    finds(
        &[("src/wal/writer.rs", text)],
        &[(Rule::Import, "src/wal/writer.rs", 1), (Rule::Import, "src/wal/writer.rs", 2)],
    );
}

#[test]
fn a_re_export_is_followed() {
    let root = ("src/lib.rs", "pub mod net;\npub mod raft;\npub use net::Endpoint;\npub use net::deep::*;\n");
    let net = ("src/net/mod.rs", "//! Net.\npub mod deep;\npub struct Endpoint;\n");
    let deep = ("src/net/deep.rs", "pub fn open() {}\n");
    for text in ["//! R.\nuse crate::Endpoint;\n", "//! R.\nfn f() { crate::open() }\n"] {
        finds(&[root, net, deep, ("src/raft/mod.rs", text)], &[(Rule::Import, "src/raft/mod.rs", 2)]);
    }
    // Through a folder that may be used: both the folder that passes it on and the one that takes it are wrong.
    let limits = ("src/limits.rs", "pub use crate::net::Endpoint;\n");
    let raft = ("src/raft/mod.rs", "//! R.\nuse crate::limits::Endpoint as E;\n");
    let root = ("src/lib.rs", "pub mod limits;\npub mod net;\npub mod raft;\n");
    finds(
        &[root, net, deep, limits, raft],
        &[(Rule::Import, "src/limits.rs", 1), (Rule::Import, "src/raft/mod.rs", 2)],
    );
    // Through a folder that may not be used, to a thing that may.
    let node = ("src/node/mod.rs", "//! N.\npub use crate::types::Index;\n");
    let raft = ("src/raft/mod.rs", "//! R.\nuse crate::node::Index;\n");
    let types = ("src/types.rs", "pub struct Index;\n");
    finds(&[node, raft, types], &[(Rule::Import, "src/raft/mod.rs", 2)]);
}

#[test]
fn a_glob_is_followed() {
    let above = ("src/wal/mod.rs", "//! W.\nmod writer;\nuse crate as c;\nuse std as s;\n");
    let below = ("src/wal/writer.rs", "use super::*;\nfn f() { c::net::open() }\nfn g() { s::thread::yield_now() }\n");
    finds(&[above, below], &[(Rule::Import, "src/wal/writer.rs", 2), (Rule::Deterministic, "src/wal/writer.rs", 3)]);
    passes(&[
        ("src/lib.rs", "pub mod raft;\npub mod types;\npub use types::*;\n"),
        ("src/types.rs", "pub struct Index;\n"),
        ("src/raft/mod.rs", "//! R.\nuse crate::Index;\n"),
    ]);
}

#[test]
fn names_in_a_circle_come_to_an_end() {
    let same = "mod judge;\nuse judge::judge;\nfn f() { judge(); judge::other() }\n";
    passes(&[("src/cli/doctor.rs", same), ("src/cli/doctor/judge.rs", "pub fn judge() {}\npub fn other() {}\n")]);
    passes(&[("src/raft/log.rs", "use b as a;\nuse a as b;\nfn f() { a::g(); b::g() }\n")]);
    passes(&[
        ("src/raft/log.rs", "use super::quorum::*;\nfn f() { g() }\n"),
        ("src/raft/quorum.rs", "use super::log::*;\n"),
    ]);
}

#[test]
fn a_part_of_a_folder_is_all_that_may_be_used() {
    let message = ("src/raft/message.rs", "pub struct Append;\n");
    let raft = ("src/raft/mod.rs", "//! R.\npub mod message;\npub use message::Append;\npub struct Replica;\n");
    passes(&[raft, message, ("src/net/link.rs", "use crate::raft::Append;\nuse crate::raft::message;\n")]);
    for text in ["use crate::raft::Replica;", "use crate::raft;", "use crate::raft::*;"] {
        finds(&[raft, message, ("src/net/link.rs", text)], &[(Rule::Import, "src/net/link.rs", 1)]);
    }
    passes(&[("src/wal/handle.rs", "use crate::superblock::Superblock;")]);
    finds_one("src/wal/writer.rs", "use crate::superblock::Superblock;", Rule::Import, 1);
    passes(&[("src/sim/cluster.rs", "use crate::node::driver::Driver;")]);
    finds_one("src/sim/cluster.rs", "use crate::node::run::Node;", Rule::Import, 1);
}

#[test]
fn only_test_files_use_the_simulator() {
    finds_one("src/raft/log.rs", "use crate::sim::Cluster;", Rule::Import, 1);
    passes(&[("src/raft/tests.rs", "use crate::sim::Cluster;"), ("src/raft/tests/log.rs", "use crate::sim::Cluster;")]);
    finds_one("src/raft/tests.rs", "use crate::net::Endpoint;", Rule::Import, 1);
}

#[test]
fn a_folder_without_a_row_may_use_nothing() {
    finds_one("src/cache/mod.rs", "//! A cache.\n", Rule::Import, 1);
}

#[test]
fn crates_are_used_where_the_table_says() {
    for text in ["use tokio::net::UdpSocket;", "use ::tokio::spawn;", "fn f() { tokio::spawn(g()) }", "use tokio;"] {
        finds_one("src/node/mod.rs", &format!("//! N.\n{text}"), Rule::Crate, 2);
    }
    passes(&[("src/node/run.rs", "use tokio::net::UdpSocket;"), ("src/cli/node.rs", "use tokio as t;")]);
    passes(&[("src/disk/uring.rs", "use tokio_uring::fs::File;\nfn f() { tokio_uring::start(x) }")]);
    finds_one("src/disk/probe.rs", "use tokio_uring::fs::File;", Rule::Crate, 1);
    finds_one("src/wal/writer.rs", "fn f() { tracing::info!(\"x\") }", Rule::Crate, 1);
    passes(&[("src/net/link.rs", "fn f() { tracing::info!(\"x\") }")]);
    finds_one("src/raft/log.rs", "use proptest::prelude::*;", Rule::Crate, 1);
    passes(&[("src/raft/log.rs", "#[cfg(test)]\nmod tests { use proptest::prelude::*; }")]);
    passes(&[("src/disk/tests.rs", "use tokio::time::sleep;\nuse crate::random::Random;")]);
    finds_one("src/disk/tests.rs", "use tokio_uring::fs::File;", Rule::Crate, 1);
    passes(&[("src/sim/disk.rs", "use rustix::io::Errno;\nfn f() { Errno::IO }")]);
    finds_one("src/sim/disk.rs", "use rustix::io::read;", Rule::Crate, 1);
    finds_one("src/sim/disk.rs", "use rustix::io as i;\nfn f() -> i::Errno {}", Rule::Crate, 1);
    // A variable named like a crate is no crate.
    passes(&[("src/raft/log.rs", "fn f(bytes: u8, imbl: u8) -> u8 { bytes + imbl }")]);
}

#[test]
fn entropy_is_drawn_at_the_edge_alone() {
    for text in ["use crate::random::entropy;", "fn f() { crate::random::entropy() }"] {
        finds_one("src/wal/writer.rs", text, Rule::Entropy, 1);
        passes(&[("src/wal/handle.rs", text)]);
    }
}

#[test]
fn deterministic_code_has_no_clock_no_thread_and_no_hash_order() {
    let impure = [
        "use std::collections::HashMap;",
        "use std::collections::{BTreeMap, HashSet as S};",
        "use std::collections::*;",
        "use std::collections::hash_map::Entry;",
        "fn f() { std::collections::HashMap::<u8, u8>::new(); }",
        "use std::time::{Duration, Instant};",
        "fn f() -> std::time::SystemTime { g() }",
        "use std::thread;",
        "fn f() { std::thread::sleep(d) }",
        "fn f() { std::fs::read(p) }",
        "async fn f() {}",
        "fn f() { g(async { 1 }) }",
        "thread_local! { static A: u8 = 1; }",
        "fn f() { println!(\"x\") }",
        "fn f() { g!(eprintln!(\"x\")) }",
    ];
    for text in impure {
        finds_one("src/wal/writer.rs", text, Rule::Deterministic, 1);
        finds_one("src/node/driver.rs", text, Rule::Deterministic, 1);
        finds_one("src/node/driver/queue.rs", text, Rule::Deterministic, 1);
        finds_one("src/superblock.rs", text, Rule::Deterministic, 1);
        passes(&[("src/wal/handle.rs", text), ("src/net/link.rs", text)]);
    }
    let alias = "use std::collections as c;\nfn f() { c::HashMap::<u8, u8>::new(); }";
    finds_one("src/raft/log.rs", alias, Rule::Deterministic, 2);
    let lent = ("src/types.rs", "pub use std::collections::HashMap as Map;");
    finds(
        &[lent, ("src/raft/log.rs", "fn f(_: crate::types::Map<u8, u8>) {}")],
        &[(Rule::Deterministic, "src/raft/log.rs", 1)],
    );
    finds_one("src/machine/map.rs", "use imbl::HashMap;", Rule::Deterministic, 1);
}

#[test]
fn tests_of_deterministic_code_may_take_time_but_not_hash() {
    passes(&[("src/wal/tests.rs", "use std::time::Instant;\nfn f() { println!(\"x\") }")]);
    finds_one("src/wal/tests.rs", "use std::collections::HashMap;", Rule::Deterministic, 1);
}

#[test]
fn unsafe_stands_in_disk_with_its_reason() {
    for text in ["fn f() { unsafe { g() } }", "unsafe fn f() {}", "unsafe impl Send for X {}", "unsafe extern \"C\" {}"]
    {
        finds_one("src/wal/writer.rs", text, Rule::Unsafe, 1);
        finds_one("src/disk/buffer.rs", text, Rule::Unsafe, 1);
        passes(&[("src/disk/buffer.rs", &format!("// SAFETY: g asks for nothing.\n{text}"))]);
    }
    finds_one("src/wal/writer.rs", "fn f() { g!(unsafe { h() }) }", Rule::Unsafe, 1);
}

#[test]
fn files_and_functions_have_a_size() {
    let lines = |count: usize| "    g();\n".repeat(count);
    passes(&[("src/wal/writer.rs", &format!("fn f() {{\n{}}}\n", lines(68)))]);
    finds_one("src/wal/writer.rs", &format!("fn f() {{\n{}}}\n", lines(69)), Rule::FunctionLength, 1);
    finds_one("src/wal/tests.rs", &format!("impl X {{ fn f() {{\n{}}} }}\n", lines(69)), Rule::FunctionLength, 1);
    passes(&[("src/wal/writer.rs", &"// x\n".repeat(600))]);
    finds_one("src/wal/writer.rs", &"// x\n".repeat(601), Rule::FileLength, 601);
    finds_one("tests/it/story.rs", &"// x\n".repeat(601), Rule::FileLength, 601);
    passes(&[("src/main.rs", &"// x\n".repeat(29))]);
    finds_one("src/main.rs", &"// x\n".repeat(30), Rule::MainLength, 30);
}

#[test]
fn nothing_is_left_undone() {
    for text in
        [concat!("// TO", "DO: x\n"), concat!("/* FIX", "ME */\n"), "fn f() { todo!() }", "fn f() { g(dbg!(1)) }"]
    {
        finds_one("src/wal/writer.rs", text, Rule::Undone, 1);
    }
    finds_one("src/wal/tests.rs", "fn f() { unimplemented!() }", Rule::Undone, 1);
}

#[test]
fn names_say_something() {
    finds_one("src/wal/util.rs", "", Rule::Word, 1);
    finds_one("src/wal/frame_helpers.rs", "", Rule::Word, 1);
    for text in ["struct SegmentManager;", "enum Misc {}", "trait FrameHelper {}", "type X = u8; mod utils {}"] {
        finds_one("src/wal/writer.rs", text, Rule::Word, 1);
    }
    passes(&[("src/wal/writer.rs", "struct Utilisation;\nstruct Permission;\nmod futile {}\n")]);
    finds_one("src/wal/writer.rs", "fn get_end() {}", Rule::Getter, 1);
    finds_one("src/wal/writer.rs", "trait T { fn get_end(&self); }", Rule::Getter, 1);
    passes(&[("src/machine/map.rs", "fn get() {}\nfn gets_through() {}\n")]);
    finds_one("src/adapters/other.rs", "impl Ours { fn get_end(&self) {} }", Rule::Getter, 1);
    passes(&[("src/adapters/other.rs", "impl Theirs for Ours { fn get_end(&self) {} }")]);
}

#[test]
fn results_are_taken_seriously() {
    finds_one("src/net/link.rs", "fn f() { g().unwrap(); }", Rule::Unwrap, 1);
    finds_one("src/net/link.rs", "fn f() { assert!(g().unwrap()); }", Rule::Unwrap, 1);
    passes(&[
        ("src/net/tests.rs", "fn f() { g().unwrap(); }"),
        ("src/net/link.rs", "#[cfg(test)]\nmod tests { fn f() { g().unwrap(); } }\nfn h() { g().unwrap_or(1); }"),
        ("src/net/mod.rs", "//! N.\n#[cfg(test)]\nmod fixture;"),
        ("src/net/fixture.rs", "fn f() { g().unwrap(); }"),
    ]);
    for text in ["fn f() { let _ = g(); }", "fn f() { g().ok(); }"] {
        finds_one("src/disk/file.rs", text, Rule::Discard, 1);
        finds_one("src/superblock.rs", text, Rule::Discard, 1);
        passes(&[("src/disk/tests.rs", text), ("src/cli/node.rs", text)]);
    }
    passes(&[("src/disk/file.rs", "fn f() { let _kept = g(); let x = g().ok(); }")]);
}

#[test]
fn folders_open_with_prose_and_files_are_declared() {
    finds_one("src/wal/mod.rs", "mod writer;\n//! Late.\n".split("//!").next().unwrap(), Rule::Prose, 1);
    let root = ("src/lib.rs", "pub mod wal;\n");
    let folder = ("src/wal/mod.rs", "//! The log.\nmod writer;\n");
    passes(&[root, folder, ("src/wal/writer.rs", "")]);
    finds(&[root, folder, ("src/wal/reader.rs", "")], &[(Rule::DeadFile, "src/wal/reader.rs", 1)]);
    finds(&[root, ("src/net/mod.rs", "//! N.\n")], &[(Rule::DeadFile, "src/net/mod.rs", 1)]);
    finds(
        &[root, ("src/wal/mod.rs", "//! W.\n#[path = \"x.rs\"]\nmod y;\n")],
        &[(Rule::DeadFile, "src/wal/mod.rs", 3)],
    );
}

#[test]
fn a_file_that_does_not_parse_is_named() {
    finds_one("src/wal/writer.rs", "fn f() {}\nfn {}\n", Rule::Parse, 2);
}

#[test]
fn dependencies_are_decisions_and_texts_name_no_machine() {
    let check = |decisions: &str, readme: &str| {
        let manifest = "[dependencies]\nbytes = '1'\n[target.'cfg(unix)'.dev-dependencies]\nsyn = '2'\n";
        let mut found = Vec::new();
        let texts = [("Cargo.toml", manifest), ("docs/decisions.md", decisions), ("README.md", readme)];
        repository::check(&files(&texts), &mut found);
        found.iter().map(|violation| (violation.rule, violation.line)).collect::<Vec<_>>()
    };
    let decided = "# D\n## Dependencies\n- `bytes`: payloads.\n- `syn`: this.\n## Choices\n- `other`: no crate.\n";
    assert_eq!(check(decided, "all in /var/lib/trilith\n"), []);
    assert_eq!(check("## Dependencies\n- `bytes`: payloads.\n", ""), [(Rule::Dependency, 1)]);
    assert_eq!(
        check(&decided.replace("## Choices", "- `gone`: x."), ""),
        [(Rule::Dependency, 5), (Rule::Dependency, 6)]
    );
    let machine = format!("see\n{}x/notes\n", concat!("/ho", "me/"));
    assert_eq!(check(decided, &machine), [(Rule::MachinePath, 2)]);
    let address = format!("https://example.org{}x\n", concat!("/ho", "me/"));
    assert_eq!(check(decided, &address), []);
}
