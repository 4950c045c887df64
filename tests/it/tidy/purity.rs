//! What deterministic code may not touch, and where `unsafe` may stand.

use super::source::{Fact, What};
use super::tree::{Source, Target, Trail, Tree};
use super::{
    BANNED_HASH_NAMES, BANNED_MACROS, BANNED_NAMES, BANNED_PATHS, Rule, UNSAFE_MODULE, Violation, is_deterministic,
    lies_in, lies_in_any,
};

/// How far above an `unsafe` its reason may begin.
const SAFETY_LINES: usize = 8;

pub fn check(tree: &Tree, found: &mut Vec<Violation>) {
    for source in tree.own() {
        for fact in &source.facts {
            if is_deterministic(&source.module) {
                check_deterministic(tree, source, fact, found);
            }
            if matches!(fact.what, What::Unsafe) {
                check_unsafe(source, fact, found);
            }
        }
    }
}

fn check_deterministic(tree: &Tree, source: &Source, fact: &Fact, found: &mut Vec<Violation>) {
    let is_test = source.is_test || fact.in_test;
    let message = match &fact.what {
        What::Use { path, .. } | What::Path(path) if !path.is_empty() => banned(tree, source, fact, path, is_test),
        What::Async if !is_test => Some("async code runs in an order of its own".to_string()),
        What::Macro(name) if !is_test && BANNED_MACROS.contains(&name.as_str()) => {
            Some(format!("`{name}!`: what happens is part of the output, as an event"))
        }
        _ => None,
    };
    if let Some(message) = message {
        found.push(Violation { rule: Rule::Deterministic, file: source.file.clone(), line: fact.line, message });
    }
}

fn banned(tree: &Tree, source: &Source, fact: &Fact, path: &[String], is_test: bool) -> Option<String> {
    let around = [source.module.as_slice(), &fact.inline].concat();
    let target = match tree.resolve(&around, path, &mut Trail::default()) {
        Target::Outside(target) => target,
        // A glob import may hide where a name comes from; the names themselves are rare enough.
        Target::Local => path.to_vec(),
        Target::Inside(_) => return None,
    };
    let has = |names: &[&str]| target.iter().any(|name| names.contains(&name.as_str()));
    let glob_of_hashes =
        matches!(fact.what, What::Use { name: None, .. }) && target.last().is_some_and(|name| name == "collections");
    if has(BANNED_HASH_NAMES) || glob_of_hashes {
        return Some(format!("`{}`: hash order is not part of the seed", path.join("::")));
    }
    if !is_test && (has(BANNED_NAMES) || lies_in_any(&target, BANNED_PATHS)) {
        return Some(format!(
            "`{}` ({}): time, threads and files come as arguments",
            path.join("::"),
            target.join("::")
        ));
    }
    None
}

fn check_unsafe(source: &Source, fact: &Fact, found: &mut Vec<Violation>) {
    let message = if !lies_in(&source.module, UNSAFE_MODULE) {
        format!("`unsafe` outside of src/{UNSAFE_MODULE}")
    } else if !has_reason(&source.text, fact.line) {
        "`unsafe` without a SAFETY line above it".to_string()
    } else {
        return;
    };
    found.push(Violation { rule: Rule::Unsafe, file: source.file.clone(), line: fact.line, message });
}

fn has_reason(text: &str, line: usize) -> bool {
    let lines: Vec<&str> = text.lines().take(line).collect();
    lines.iter().rev().take(SAFETY_LINES).any(|line| line.contains("SAFETY:") || line.contains("# Safety"))
}
