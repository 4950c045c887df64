//! All files together: which module each one is, whether it is a test, and what a path in it really names.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{Fact, What, facts};
use super::{Rule, Violation};

/// One parsed file.
pub struct Source {
    /// Relative to the repository, with `/`.
    pub file: String,
    pub text: String,
    /// Empty outside of src/ and for lib.rs and main.rs.
    pub module: Vec<String>,
    /// Declared under `#[cfg(test)]`, or `tests.rs`, or below a folder `tests`.
    pub is_test: bool,
    pub facts: Vec<Fact>,
}

/// What a module declares: enough to follow a name.
#[derive(Default)]
struct Scope {
    uses: BTreeMap<String, Vec<String>>,
    globs: Vec<Vec<String>>,
    items: BTreeSet<String>,
}

pub struct Tree {
    pub sources: Vec<Source>,
    pub unparsed: Vec<Violation>,
    scopes: BTreeMap<Vec<String>, Scope>,
    dependencies: BTreeSet<String>,
}

/// What a path names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// Of this crate: the module path and what follows.
    Inside(Vec<String>),
    /// Of another crate, its name first.
    Outside(Vec<String>),
    /// A variable, a type parameter, a prelude name: nothing that crosses a module.
    Local,
}

/// Re-exports of re-exports of ...: longer than this is a circle.
const STEPS_MAX: usize = 24;

/// How a path was followed.
#[derive(Clone, Default)]
pub struct Trail {
    /// Every place of this crate that the path led through.
    pub hops: Vec<Vec<String>>,
    steps: usize,
    /// Modules whose globs are being searched: not searched again, so that globs in a circle come to an end.
    open: Vec<Vec<String>>,
}

impl Tree {
    /// `files` by path relative to the repository; `dependencies` as crates are named in code.
    pub fn new(files: &BTreeMap<String, String>, dependencies: BTreeSet<String>) -> Tree {
        let mut tree = Tree { sources: Vec::new(), unparsed: Vec::new(), scopes: BTreeMap::new(), dependencies };
        for (file, text) in files.iter().filter(|(file, _)| file.ends_with(".rs")) {
            match facts(text) {
                Ok(facts) => tree.sources.push(Source {
                    file: file.clone(),
                    text: text.clone(),
                    module: module_of(file),
                    is_test: !file.starts_with("src/") || names_a_test(file),
                    facts,
                }),
                Err((line, message)) => {
                    tree.unparsed.push(Violation { rule: Rule::Parse, file: file.clone(), line, message });
                }
            }
        }
        tree.mark_tests();
        tree.fill_scopes();
        tree
    }

    /// The sources under src/.
    pub fn own(&self) -> impl Iterator<Item = &Source> {
        self.sources.iter().filter(|source| source.file.starts_with("src/"))
    }

    pub fn knows_crate(&self, name: &str) -> bool {
        ["std", "core", "alloc"].contains(&name) || self.dependencies.contains(name)
    }

    /// What `path` names in `module`.
    pub fn resolve(&self, module: &[String], path: &[String], trail: &mut Trail) -> Target {
        trail.steps += 1;
        if trail.steps > STEPS_MAX {
            return Target::Local;
        }
        let (first, rest) = (path[0].as_str(), &path[1..]);
        match first {
            "crate" | "trilith" => self.walk(Vec::new(), rest, trail),
            "self" => self.walk(module.to_vec(), rest, trail),
            "super" => {
                let ups = path.iter().take_while(|name| *name == "super").count();
                let kept = module.len().saturating_sub(ups);
                self.walk(module[..kept].to_vec(), &path[ups..], trail)
            }
            "::" => Target::Outside(rest.to_vec()),
            // Before a `::` only a module can stand: a function of the same name is another name.
            _ if !rest.is_empty() && self.scopes.contains_key(&[module, &path[..1]].concat()) => {
                self.walk(module.to_vec(), path, trail)
            }
            _ => match self.find(module, first, trail) {
                Some(Found::Here(place)) => self.walk(place, path, trail),
                Some(Found::Bound(place, target)) if target != [first] => {
                    self.resolve(&place, &[target.as_slice(), rest].concat(), trail)
                }
                _ if self.knows_crate(first) => Target::Outside(path.to_vec()),
                _ => Target::Local,
            },
        }
    }

    /// Goes down from a module of this crate, through what modules re-export.
    fn walk(&self, mut module: Vec<String>, path: &[String], trail: &mut Trail) -> Target {
        for (at, name) in path.iter().enumerate() {
            let mut below = module.clone();
            below.push(name.clone());
            if self.scopes.contains_key(&below) {
                module = below;
                continue;
            }
            trail.hops.push(below);
            let rest = &path[at + 1..];
            return match self.find(&module, name, trail) {
                Some(Found::Bound(place, target)) if target != [name.clone()] => {
                    self.resolve(&place, &[target.as_slice(), rest].concat(), trail)
                }
                Some(Found::Here(place)) => Target::Inside([place.as_slice(), &path[at..]].concat()),
                _ => Target::Inside([module.as_slice(), &path[at..]].concat()),
            };
        }
        trail.hops.push(module.clone());
        Target::Inside(module)
    }

    /// Where a module has a name from: itself, a `use`, a glob.
    fn find(&self, module: &[String], name: &str, trail: &mut Trail) -> Option<Found> {
        let scope = self.scopes.get(module)?;
        if let Some(target) = scope.uses.get(name) {
            return Some(Found::Bound(module.to_vec(), target.clone()));
        }
        let below = [module, &[name.to_string()]].concat();
        if scope.items.contains(name) || self.scopes.contains_key(&below) {
            return Some(Found::Here(module.to_vec()));
        }
        if trail.open.iter().any(|open| open == module) {
            return None;
        }
        let mut inner =
            Trail { hops: Vec::new(), steps: trail.steps, open: [trail.open.as_slice(), &[module.to_vec()]].concat() };
        scope.globs.iter().find_map(|glob| match self.resolve(module, glob, &mut inner) {
            Target::Inside(place) => self.find(&place, name, &mut inner),
            Target::Outside(_) | Target::Local => None,
        })
    }

    /// A module declared under `#[cfg(test)]` is a test, and so is all below it.
    fn mark_tests(&mut self) {
        let mut declared = Vec::new();
        for source in self.own() {
            for fact in &source.facts {
                if let (true, What::Module { name, .. }) = (fact.in_test, &fact.what) {
                    declared.push([source.module.as_slice(), &fact.inline, std::slice::from_ref(name)].concat());
                }
            }
        }
        for source in &mut self.sources {
            source.is_test |= declared.iter().any(|module| source.module.starts_with(module));
        }
    }

    fn fill_scopes(&mut self) {
        let mut scopes: BTreeMap<Vec<String>, Scope> = BTreeMap::new();
        for source in self.own().filter(|source| source.file != "src/main.rs") {
            scopes.entry(source.module.clone()).or_default();
            for fact in &source.facts {
                let module = [source.module.as_slice(), &fact.inline].concat();
                let scope = scopes.entry(module).or_default();
                match &fact.what {
                    What::Use { path, name: Some(name) } => {
                        scope.uses.insert(name.clone(), path.clone());
                    }
                    What::Use { path, name: None } => scope.globs.push(path.clone()),
                    What::Item { name, .. } => {
                        scope.items.insert(name.clone());
                    }
                    _ => {}
                }
            }
        }
        self.scopes = scopes;
    }
}

enum Found {
    Here(Vec<String>),
    /// Bound by a `use` of this module to this path.
    Bound(Vec<String>, Vec<String>),
}

/// `src/wal/writer.rs` is `wal::writer`, `src/wal/mod.rs` is `wal`.
fn module_of(file: &str) -> Vec<String> {
    let Some(inner) = file.strip_prefix("src/").and_then(|rest| rest.strip_suffix(".rs")) else {
        return Vec::new();
    };
    let mut names: Vec<String> = inner.split('/').map(str::to_string).collect();
    match names.last().map(String::as_str) {
        Some("mod") => drop(names.pop()),
        Some("lib" | "main") if names.len() == 1 => names.clear(),
        _ => {}
    }
    names
}

fn names_a_test(file: &str) -> bool {
    file.ends_with("/tests.rs") || file.contains("/tests/")
}
