//! Who may import whom.

use super::source::{Fact, What};
use super::tree::{Source, Target, Trail, Tree};
use super::{
    CRATES_EVERYWHERE, CRATES_OF_ONE_FILE, CRATES_OUTSIDE_DETERMINISTIC, ENTROPY, ENTROPY_USERS, IMPORTS,
    MODULES_IN_TESTS, Rule, Violation, WITHHELD, is_deterministic, lies_in, lies_in_any,
};

pub fn check(tree: &Tree, found: &mut Vec<Violation>) {
    for source in tree.own() {
        let module = folder(source);
        if !IMPORTS.iter().any(|row| row.module == module[0]) {
            let message = format!("the table has no row for {}: it may use nothing", module[0]);
            found.push(Violation { rule: Rule::Import, file: source.file.clone(), line: 1, message });
            continue;
        }
        for fact in &source.facts {
            check_fact(tree, source, &module, fact, found);
        }
    }
}

/// The module whose row counts; lib.rs and main.rs have rows of their own.
fn folder(source: &Source) -> Vec<String> {
    match source.file.as_str() {
        "src/lib.rs" => vec!["lib".to_string()],
        "src/main.rs" => vec!["main".to_string()],
        _ => source.module.clone(),
    }
}

fn check_fact(tree: &Tree, source: &Source, user: &[String], fact: &Fact, found: &mut Vec<Violation>) {
    let (path, is_use) = match &fact.what {
        What::Use { path, .. } => (path, true),
        What::Path(path) => (path, false),
        _ => return,
    };
    if path.is_empty() || (!is_use && path.len() == 1 && tree.knows_crate(&path[0])) {
        return;
    }
    let is_test = source.is_test || fact.in_test;
    let around = [source.module.as_slice(), &fact.inline].concat();
    let mut trail = Trail::default();
    let mut report = |rule, message| {
        found.push(Violation { rule, file: source.file.clone(), line: fact.line, message });
    };
    let written = path.join("::");
    match tree.resolve(&around, path, &mut trail) {
        Target::Local => {}
        Target::Outside(outside) => {
            let name = outside[0].as_str();
            if !may_use_crate(user, &outside, is_test) {
                report(Rule::Crate, format!("`{written}`: {} may not use the crate {name}", user.join("::")));
            }
        }
        Target::Inside(inside) => {
            if !may_use_module(user, &inside, is_test) || !trail.hops.iter().all(|hop| may_pass(user, hop, is_test)) {
                let target = inside.join("::");
                report(Rule::Import, format!("`{written}` ({target}): {} may not use it", user.join("::")));
            }
            if lies_in(&inside, ENTROPY) && !is_test && !lies_in_any(user, ENTROPY_USERS) {
                report(Rule::Entropy, format!("`{written}`: seeds are arguments below the edge"));
            }
        }
    }
}

fn may_use_crate(user: &[String], used: &[String], is_test: bool) -> bool {
    let name = used[0].as_str();
    CRATES_EVERYWHERE.contains(&name)
        || (!is_deterministic(user) && CRATES_OUTSIDE_DETERMINISTIC.contains(&name))
        || (is_test && !CRATES_OF_ONE_FILE.contains(&name))
        || rows(user).any(|row| row.crates.contains(&"*") || lies_in_any(used, row.crates))
}

/// Whether `user` may name `used`, an item or module of this crate.
fn may_use_module(user: &[String], used: &[String], is_test: bool) -> bool {
    if used.is_empty() || used[0] == user[0] || rows(user).any(|row| row.modules.contains(&"*")) {
        return true;
    }
    if is_test && lies_in_any(used, MODULES_IN_TESTS) {
        return true;
    }
    let withheld = WITHHELD.iter().any(|(who, what)| lies_in(user, who) && lies_in(used, what));
    !withheld && rows(user).any(|row| lies_in_any(used, row.modules))
}

/// Whether a path of `user` may lead through `hop`: a folder of which something may be used may re-export it.
fn may_pass(user: &[String], hop: &[String], is_test: bool) -> bool {
    // A name in the crate's root is what lib.rs re-exports: where it leads to is what counts.
    let is_folder = |name: &String| IMPORTS.iter().any(|row| row.module == name);
    let Some(first) = hop.first().filter(|first| is_folder(first)) else { return true };
    may_use_module(user, hop, is_test)
        || rows(user).any(|row| row.modules.iter().any(|allowed| allowed.split("::").next() == Some(first)))
}

fn rows(user: &[String]) -> impl Iterator<Item = &'static super::Row> {
    IMPORTS.iter().filter(move |row| lies_in(user, row.module))
}
