//! Sizes, names, and what is not to stand in a finished file.

use std::collections::BTreeSet;

use super::source::{Fact, What};
use super::tree::{Source, Tree};
use super::{
    BANNED_WORDS, DURABLE, FILE_LINES_MAX, FUNCTION_LINES_MAX, MAIN_LINES_MAX, Rule, UNDONE_MACROS, UNDONE_WORDS,
    Violation, lies_in_any,
};

pub fn check(tree: &Tree, found: &mut Vec<Violation>) {
    for source in &tree.sources {
        let mut report = |rule, line, message| {
            found.push(Violation { rule, file: source.file.clone(), line, message });
        };
        check_file(source, &mut report);
        for fact in &source.facts {
            check_fact(source, fact, &mut report);
        }
    }
    check_dead_files(tree, found);
}

fn check_file(source: &Source, report: &mut impl FnMut(Rule, usize, String)) {
    let lines = source.text.lines().count();
    if lines > FILE_LINES_MAX {
        report(Rule::FileLength, lines, format!("{lines} lines, at most {FILE_LINES_MAX}"));
    }
    if source.file == "src/main.rs" && lines > MAIN_LINES_MAX {
        report(Rule::MainLength, lines, format!("{lines} lines, at most {MAIN_LINES_MAX}: the rest belongs to cli"));
    }
    for (at, line) in source.text.lines().enumerate() {
        let mut words = line.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
        if let Some(word) = words.find(|word| UNDONE_WORDS.contains(word)) {
            report(Rule::Undone, at + 1, format!("{word}: do it, or write an issue"));
        }
    }
    if source.file.starts_with("src/") && source.file.ends_with("/mod.rs") && !source.text.starts_with("//!") {
        report(Rule::Prose, 1, "a folder opens with prose: what it is for, its contract".to_string());
    }
    let name = source.file.trim_end_matches(".rs");
    if let Some(word) = name.split('/').find_map(banned_word) {
        report(Rule::Word, 1, format!("a file's name says what it is about; `{word}` does not"));
    }
}

fn check_fact(source: &Source, fact: &Fact, report: &mut impl FnMut(Rule, usize, String)) {
    let is_test = source.is_test || fact.in_test;
    let line = fact.line;
    match &fact.what {
        What::Function { lines, name, .. } if *lines > FUNCTION_LINES_MAX => {
            report(Rule::FunctionLength, line, format!("{name} has {lines} lines, at most {FUNCTION_LINES_MAX}"));
        }
        // What implements a trait is found where the trait is, if the trait is ours.
        What::Function { name, is_of_trait: false, .. } if name.starts_with("get_") => {
            report(Rule::Getter, line, format!("`{name}`: a getter is named after what it gives"));
        }
        What::Item { name, is_type: true } | What::Module { name, .. } => {
            if let Some(word) = banned_word(name) {
                report(Rule::Word, line, format!("`{name}`: `{word}` says nothing"));
            }
        }
        What::Macro(name) if UNDONE_MACROS.contains(&name.as_str()) => {
            report(Rule::Undone, line, format!("`{name}!`"));
        }
        What::Unwrap if !is_test => {
            report(Rule::Unwrap, line, "`unwrap` outside of tests: `expect` with the proof, or `?`".to_string());
        }
        What::Discard if !is_test && lies_in_any(&source.module, DURABLE) => {
            report(Rule::Discard, line, "a result thrown away on the way to the disk".to_string());
        }
        _ => {}
    }
}

/// The banned word in a name of any case, if there is one.
fn banned_word(name: &str) -> Option<String> {
    let mut words = vec![String::new()];
    for letter in name.chars() {
        if letter == '_' || letter == '-' || letter.is_uppercase() {
            words.push(String::new());
        }
        let last = words.last_mut().expect("begins with one");
        last.extend(letter.to_lowercase().filter(|letter| letter.is_alphanumeric()));
    }
    words.into_iter().find(|word| BANNED_WORDS.contains(&word.as_str()))
}

/// A file that no `mod` declares is not compiled, and so not checked by anything.
fn check_dead_files(tree: &Tree, found: &mut Vec<Violation>) {
    if !tree.own().any(|source| source.file == "src/lib.rs") {
        return;
    }
    let mut declared: BTreeSet<Vec<String>> = BTreeSet::from([Vec::new()]);
    for source in tree.own() {
        for fact in &source.facts {
            let What::Module { name, moved, .. } = &fact.what else { continue };
            declared.insert([source.module.as_slice(), &fact.inline, std::slice::from_ref(name)].concat());
            if *moved {
                let message = format!("`mod {name}` with a path attribute: the tree is the architecture");
                found.push(Violation { rule: Rule::DeadFile, file: source.file.clone(), line: fact.line, message });
            }
        }
    }
    for source in tree.own() {
        if (0..source.module.len()).any(|depth| !declared.contains(&source.module[..=depth])) {
            let message = "no `mod` declares this file".to_string();
            found.push(Violation { rule: Rule::DeadFile, file: source.file.clone(), line: 1, message });
        }
    }
}
