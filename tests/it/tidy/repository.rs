//! What stands beside the sources: the manifest, the decisions, and no trace of a machine.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use super::{MACHINE_PATHS, Rule, Violation};

/// Directories that hold no text of the repository.
const SKIPPED: &[&str] = &["target", ".git", "artifacts", "corpus"];
/// A file larger than this is data.
const TEXT_BYTES_MAX: u64 = 1 << 20;

/// Every text below `root` by its path there.
pub fn read_texts(root: &Path) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::new();
    let mut waiting = vec![String::new()];
    while let Some(directory) = waiting.pop() {
        let listed = fs::read_dir(root.join(&directory)).expect("a directory of the repository can be listed");
        for entry in listed {
            let entry = entry.expect("a directory of the repository can be listed");
            let name = entry.file_name().into_string().expect("names in the repository are UTF-8");
            let path = if directory.is_empty() { name.clone() } else { format!("{directory}/{name}") };
            let kind = entry.file_type().expect("a listed file has a type");
            let running = directory.is_empty() && name.starts_with("trilith-");
            if kind.is_dir() && !SKIPPED.contains(&name.as_str()) && !running {
                waiting.push(path);
            } else if kind.is_file() && entry.metadata().expect("a listed file has a size").len() <= TEXT_BYTES_MAX {
                // What is not UTF-8 is data.
                if let Ok(text) = fs::read_to_string(entry.path()) {
                    texts.insert(path, text);
                }
            }
        }
    }
    texts
}

const TABLES: &[&str] = &["dependencies", "dev-dependencies", "build-dependencies"];

/// The crates that the manifest names, as they are written in code.
pub fn dependencies(manifest: &str) -> BTreeSet<String> {
    let names = TABLES.iter().flat_map(|table| declared(manifest, table));
    names.map(|name| name.replace('-', "_")).collect()
}

pub fn check(files: &BTreeMap<String, String>, found: &mut Vec<Violation>) {
    check_decisions(files, found);
    for (file, text) in files.iter().filter(|(file, _)| *file != ".git") {
        for (at, line) in text.lines().enumerate() {
            if let Some(path) = MACHINE_PATHS.iter().find(|path| names(line, path)) {
                let message = format!("`{path}`: a path of one machine");
                found.push(Violation { rule: Rule::MachinePath, file: file.clone(), line: at + 1, message });
            }
        }
    }
}

/// Whether `path` begins somewhere in `line`: as the later part of a longer path or address it is another one.
fn names(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|letter| letter.is_alphanumeric() || "_-./}".contains(letter))
    })
}

/// Every direct dependency has a line "- `name`: why" in docs/decisions.md, and no line is about one that is gone.
fn check_decisions(files: &BTreeMap<String, String>, found: &mut Vec<Violation>) {
    let manifest = files.get("Cargo.toml").map_or("", String::as_str);
    let decisions = files.get("docs/decisions.md").map_or("", String::as_str);
    let mut report = |file: &str, line, message| {
        found.push(Violation { rule: Rule::Dependency, file: file.to_string(), line, message });
    };
    let names: BTreeSet<String> = TABLES.iter().flat_map(|table| declared(manifest, table)).collect();
    for name in &names {
        if !decisions.lines().any(|line| line.starts_with(&format!("- `{name}`"))) {
            report("Cargo.toml", 1, format!("{name} has no line in docs/decisions.md"));
        }
    }
    let section = decisions.lines().enumerate().skip_while(|(_, line)| *line != "## Dependencies").skip(1);
    for (at, line) in section.take_while(|(_, line)| !line.starts_with("## ")) {
        let named = line.strip_prefix("- `").and_then(|rest| rest.split('`').next());
        if let Some(name) = named.filter(|name| !names.contains(*name)) {
            report("docs/decisions.md", at + 1, format!("{name} is no dependency"));
        }
    }
}

/// The names in a table of dependencies, those for one platform among them.
fn declared(manifest: &str, table: &str) -> BTreeSet<String> {
    let manifest: toml::Table = manifest.parse().expect("Cargo.toml is TOML");
    let platforms = manifest.get("target").and_then(toml::Value::as_table).into_iter().flat_map(toml::Table::values);
    platforms
        .filter_map(toml::Value::as_table)
        .chain([&manifest])
        .filter_map(|place| place.get(table).and_then(toml::Value::as_table))
        .flat_map(|dependencies| dependencies.keys().cloned())
        .collect()
}
