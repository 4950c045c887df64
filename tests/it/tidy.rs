//! The rules of the house, checked: who may import whom, what deterministic code may not touch, sizes, names, and
//! that the repository's texts keep up with it.
//!
//! ```text
//!   files ──▶ Source (parsed, flattened to facts) ──▶ Tree (modules, names, what is a test)
//!                                                       │
//!        imports   purity   shape   repository   ◀──────┘      each gives violations with file and line
//! ```
//!
//! Every path is resolved before it is judged: `use` with groups, aliases and globs, inline paths, `self::`, `super::`,
//! paths inside of macro calls, and names that another module re-exports. The rules themselves stand here, as data.
//! To add an arrow is a decision: it needs a line in docs/decisions.md.

mod imports;
mod purity;
mod repository;
mod shape;
mod snippets;
mod source;
mod tree;

use std::fmt;

use tree::Tree;

/// What a part of the tree may use. A path (`raft::message`, `rustix::io::Errno`) allows what it names and all below.
struct Row {
    /// A module path: the folder, or one file of it (`wal::handle`), which then may use this **besides** its folder's.
    module: &'static str,
    modules: &'static [&'static str],
    crates: &'static [&'static str],
}

const fn row(module: &'static str, modules: &'static [&'static str], crates: &'static [&'static str]) -> Row {
    Row { module, modules, crates }
}

/// A module or crate list of everything.
const ANY: &[&str] = &["*"];

/// docs/design.md §2, the table. What is not here may not be used; a folder that has no row may use nothing.
const IMPORTS: &[Row] = &[
    row("checksum", &[], &["crc32fast"]),
    row("types", &["checksum"], &[]),
    row("limits", &["checksum", "types"], &[]),
    row("random", &["checksum", "types", "limits"], &["rustix"]),
    row("codec", &["checksum", "types", "limits", "random"], &[]),
    row("mutant", &[], &[]),
    row("raft", &["types", "limits", "random", "mutant"], &[]),
    row("machine", &["types", "limits", "codec", "checksum"], &["imbl"]),
    row("disk", &["types", "limits", "mutant"], &["rustix", "memmap2"]),
    row("disk::mapping", &[], &["libc"]),
    row("disk::uring", &[], &["tokio_uring", "tokio"]),
    row("wal", &["types", "limits", "codec", "checksum", "random", "disk", "mutant"], &[]),
    row("wal::handle", &["superblock"], &[]),
    row("wal::tests", &["superblock", "snapshot"], &[]),
    row("superblock", &["types", "limits", "codec", "checksum", "random", "disk"], &[]),
    row("snapshot", &["types", "limits", "codec", "checksum", "random", "disk", "mutant"], &[]),
    row(
        "net",
        &["types", "limits", "codec", "checksum", "random", "raft::message"],
        &["quinn", "quinn_proto", "rustls", "ring", "tokio", "x509_parser", "rcgen", "time"],
    ),
    row(
        "node",
        &[
            "checksum",
            "types",
            "limits",
            "random",
            "codec",
            "raft",
            "machine",
            "disk",
            "wal",
            "superblock",
            "snapshot",
            "net",
            "mutant",
        ],
        &[],
    ),
    row("node::sessions", &[], &["imbl"]),
    row("node::run", &[], &["tokio", "rustix"]),
    row("client", &["checksum", "types", "limits", "codec", "random", "machine::command", "net"], &["tokio"]),
    row(
        "sim",
        &[
            "checksum",
            "types",
            "limits",
            "random",
            "codec",
            "raft",
            "machine",
            "disk",
            "wal",
            "superblock",
            "snapshot",
            "net",
            "node",
            "mutant",
        ],
        &["rustix::io::Errno"],
    ),
    row("adapters", &["types", "limits", "codec", "wal", "raft", "mutant"], ANY),
    row("adapters::openraft::tests", &["disk"], &[]),
    row("cli", ANY, ANY),
    row("main", ANY, ANY),
    row("lib", ANY, ANY),
];

/// What a row's folder as a whole would allow, and is withheld all the same: (user, used).
const WITHHELD: &[(&str, &str)] = &[
    ("sim", "disk::uring"),
    ("sim", "disk::blocking"),
    ("sim", "net::endpoint"),
    ("sim", "net::link"),
    ("sim", "net::identity"),
    ("sim", "node::run"),
    ("sim", "wal::handle"),
    ("sim", "snapshot::run"),
];

/// Crates that every module may use.
const CRATES_EVERYWHERE: &[&str] = &["std", "core", "alloc", "bytes", "thiserror"];
/// And those that everything outside of deterministic code may use.
const CRATES_OUTSIDE_DETERMINISTIC: &[&str] = &["tracing"];
/// What test files may use besides their folder's row; of crates all but those that belong to one file.
const MODULES_IN_TESTS: &[&str] = &["sim", "random"];
const CRATES_OF_ONE_FILE: &[&str] = &["tokio_uring"];

/// Where the same seed must give the same trace. A `*` at the end stands for any rest of a name.
const DETERMINISTIC: &[&str] = &[
    "raft",
    "wal",
    "superblock",
    "snapshot",
    "machine",
    "node::driver*",
    "node::sessions",
    "node::transfer",
    "sim",
    "adapters::openraft::mapping",
];
/// The threads around deterministic cores.
const NOT_DETERMINISTIC: &[&str] = &["wal::handle", "snapshot::run"];

/// Names that deterministic code does not touch, wherever they come from. Tests beside it may, unless they are of the
/// hash kind, which would make a failure that cannot be repeated.
const BANNED_NAMES: &[&str] = &["Instant", "SystemTime", "UNIX_EPOCH"];
const BANNED_HASH_NAMES: &[&str] =
    &["HashMap", "HashSet", "hash_map", "hash_set", "RandomState", "DefaultHasher", "ThreadRng"];
/// Paths likewise: the path and all below it.
const BANNED_PATHS: &[&str] = &["std::thread", "std::fs", "std::process", "std::env", "std::os", "rand"];
const BANNED_MACROS: &[&str] = &["thread_local", "println", "eprintln", "print", "eprint"];

/// Who may ask the kernel for randomness: where the outside world begins.
const ENTROPY: &str = "random::entropy";
const ENTROPY_USERS: &[&str] = &["random", "cli", "client", "node::run", "wal::handle"];

/// Where `unsafe` may stand, each with its SAFETY line.
const UNSAFE_MODULE: &str = "disk";
/// Where a result may not be thrown away: the path to the disk.
const DURABLE: &[&str] = &["wal", "superblock", "snapshot", "disk"];

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
const MAIN_LINES_MAX: usize = 29;

/// Words that say nothing, banned from the names of files, modules and types.
const BANNED_WORDS: &[&str] =
    &["misc", "util", "utils", "helper", "helpers", "manager", "managers", "utility", "utilities"];
/// Macros that say that something is not done, or was left behind.
const UNDONE_MACROS: &[&str] = &["todo", "unimplemented", "dbg"];
/// Written in two parts, so that this file does not contain them.
const UNDONE_WORDS: &[&str] = &[concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];

/// Directories of a machine, not of the repository. In two parts for the same reason.
const MACHINE_PATHS: &[&str] =
    &[concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/wo", "rk/"), concat!("/Us", "ers/")];

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rule {
    Parse,
    Import,
    Crate,
    Entropy,
    Deterministic,
    Unsafe,
    FileLength,
    FunctionLength,
    MainLength,
    Undone,
    Word,
    Getter,
    Unwrap,
    Discard,
    Prose,
    DeadFile,
    Dependency,
    MachinePath,
}

#[derive(Clone, Debug)]
struct Violation {
    rule: Rule,
    file: String,
    line: usize,
    message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}: {:?}: {}", self.file, self.line, self.rule, self.message)
    }
}

/// All rules that look at Rust sources.
fn check_sources(tree: &Tree) -> Vec<Violation> {
    let mut found = tree.unparsed.clone();
    imports::check(tree, &mut found);
    purity::check(tree, &mut found);
    shape::check(tree, &mut found);
    found
}

/// Whether `module` is `pattern` or lies below it; `*` at a pattern's end stands for any rest of its last name.
fn lies_in(module: &[String], pattern: &str) -> bool {
    let parts: Vec<&str> = pattern.split("::").collect();
    parts.len() <= module.len()
        && parts.iter().zip(module).all(|(part, name)| match part.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => part == name,
        })
}

fn lies_in_any(module: &[String], patterns: &[&str]) -> bool {
    patterns.iter().any(|pattern| lies_in(module, pattern))
}

fn is_deterministic(module: &[String]) -> bool {
    lies_in_any(module, DETERMINISTIC) && !lies_in_any(module, NOT_DETERMINISTIC)
}

#[test]
fn the_tree_keeps_the_rules() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = repository::read_texts(root);
    let manifest = &files["Cargo.toml"];
    let tree = Tree::new(&files, repository::dependencies(manifest));
    assert!(tree.sources.len() > 10, "only {} sources found below {}", tree.sources.len(), root.display());
    let mut found = check_sources(&tree);
    repository::check(&files, &mut found);
    let report: Vec<String> = found.iter().map(Violation::to_string).collect();
    assert!(report.is_empty(), "{} violations:\n{}", report.len(), report.join("\n"));
}
