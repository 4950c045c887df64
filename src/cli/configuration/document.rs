//! A TOML file as keys and values that know where they came from. What the keys mean is not known here.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{Error, Invalid};

/// Where a value came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    File {
        path: PathBuf,
        /// Counts from 1.
        line: usize,
    },
    /// The variable's name.
    Environment(String),
    /// The flag with its dashes.
    Flag(String),
    Default,
}

/// A value that goes over the file's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Override {
    pub key: String,
    pub text: String,
    pub origin: Origin,
}

/// The keys that a kind of file has.
pub struct Schema {
    pub keys: &'static [&'static str],
    /// The one list of tables, and its keys.
    pub list: &'static str,
    pub list_keys: &'static [&'static str],
}

/// One value, not yet understood.
#[derive(Clone, Debug)]
pub struct Value {
    pub origin: Origin,
    /// As messages show it.
    pub shown: String,
    text: Option<String>,
    integer: Option<u64>,
    boolean: Option<bool>,
}

pub type Table = BTreeMap<String, Value>;

/// A file with what goes over it.
#[derive(Debug)]
pub struct Document {
    pub path: PathBuf,
    pub table: Table,
    pub list: Vec<Table>,
}

impl Override {
    /// The value of a flag: `Override::flag("segment_bytes", "1048576")` stands for `--segment-bytes 1048576`.
    pub fn flag(key: &str, text: impl Into<String>) -> Override {
        let origin = Origin::Flag(format!("--{}", key.replace('_', "-")));
        Override { key: key.to_string(), text: text.into(), origin }
    }
}

/// The prefix of the variables that go over a file: `TRILITH_SEGMENT_BYTES` for `segment_bytes`.
const PREFIX: &str = "TRILITH_";

/// The overrides among the variables of a process, for the keys of a node. A variable that is no key but nearly one
/// is refused; others with the prefix belong to someone else.
pub fn environment(variables: impl Iterator<Item = (String, String)>) -> Result<Vec<Override>, Error> {
    let mut overrides = Vec::new();
    for (name, text) in variables {
        let Some(key) = name.strip_prefix(PREFIX).map(str::to_lowercase) else { continue };
        let origin = Origin::Environment(name.clone());
        let nearest = nearest(&key, super::node::SCHEMA.keys);
        if nearest == key {
            overrides.push(Override { key, text, origin });
        } else if is_slip(&key, nearest) {
            let nearest = format!("{PREFIX}{}", nearest.to_uppercase());
            return Err(Error::UnknownKey { origin, key: name, nearest });
        }
    }
    Ok(overrides)
}

impl Document {
    pub fn load(path: &Path, schema: &Schema, overrides: &[Override]) -> Result<Document, Error> {
        let text =
            std::fs::read_to_string(path).map_err(|source| Error::Unreadable { path: path.to_path_buf(), source })?;
        Document::parse(path, &text, schema, overrides)
    }

    /// Later overrides go over earlier ones.
    pub fn parse(path: &Path, text: &str, schema: &Schema, overrides: &[Override]) -> Result<Document, Error> {
        let at = |span: Range<usize>| Origin::File { path: path.to_path_buf(), line: line_of(text, span.start) };
        let parsed = DeTable::parse(text).map_err(|error| Error::Syntax {
            origin: at(error.span().unwrap_or(0..0)),
            message: error.message().to_string(),
        })?;
        let mut document = Document { path: path.to_path_buf(), table: Table::new(), list: Vec::new() };
        for (key, value) in in_order(parsed.get_ref()) {
            if key.get_ref() == schema.list {
                document.list = list(schema, value, &at)?;
            } else {
                let known = known(key, &[schema.keys, &[schema.list]].concat(), &at)?;
                document.table.insert(known, scalar(key.get_ref(), value, &at)?);
            }
        }
        for over in overrides {
            assert!(schema.keys.contains(&over.key.as_str()), "`{}` is no key that may be overridden", over.key);
            document.table.insert(over.key.clone(), over.value());
        }
        Ok(document)
    }

    /// The directory that relative paths of the file begin at.
    pub fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new(""))
    }

    /// Where a key's value came from.
    pub fn origin(&self, key: &str) -> Origin {
        self.table.get(key).map_or(Origin::Default, |value| value.origin.clone())
    }

    pub fn required(&self, key: &str, allowed: &str) -> Result<&Value, Error> {
        self.table.get(key).ok_or_else(|| self.missing(key, allowed))
    }

    pub fn missing(&self, key: &str, allowed: &str) -> Error {
        Error::Missing { path: self.path.clone(), key: key.to_string(), allowed: allowed.to_string() }
    }
}

impl Override {
    fn value(&self) -> Value {
        Value {
            origin: self.origin.clone(),
            shown: format!("\"{}\"", self.text),
            text: Some(self.text.clone()),
            integer: self.text.parse().ok(),
            boolean: self.text.parse().ok(),
        }
    }
}

impl Value {
    pub fn integer(&self, key: &str) -> Result<u64, Error> {
        self.integer.ok_or_else(|| self.invalid(key, "a whole number, 0 or more"))
    }

    pub fn boolean(&self, key: &str) -> Result<bool, Error> {
        self.boolean.ok_or_else(|| self.invalid(key, "true or false"))
    }

    pub fn text(&self, key: &str) -> Result<&str, Error> {
        match self.text.as_deref() {
            Some(text) if !text.is_empty() => Ok(text),
            _ => Err(self.invalid(key, "text in quotes, not empty")),
        }
    }

    /// A path, relative to `directory` if it comes from a file.
    pub fn path(&self, key: &str, directory: &Path) -> Result<PathBuf, Error> {
        let path = self.text(key)?;
        Ok(match self.origin {
            Origin::File { .. } => directory.join(path),
            Origin::Environment(_) | Origin::Flag(_) | Origin::Default => PathBuf::from(path),
        })
    }

    pub fn parse<T: std::str::FromStr>(&self, key: &str, allowed: &str) -> Result<T, Error> {
        self.text(key)?.parse().map_err(|_| self.invalid(key, allowed))
    }

    pub fn invalid(&self, key: &str, allowed: &str) -> Error {
        let invalid = Invalid {
            key: key.to_string(),
            value: self.shown.clone(),
            allowed: allowed.to_string(),
            next_step: format!("set `{key}` to {allowed}"),
        };
        Error::Invalid { origin: self.origin.clone(), invalid: Box::new(invalid) }
    }
}

type Entry<'a, 'i> = (&'a Spanned<std::borrow::Cow<'i, str>>, &'a Spanned<DeValue<'i>>);

/// The table's entries as they stand in the file, so that the first mistake is the one that is named.
fn in_order<'a, 'i>(table: &'a DeTable<'i>) -> Vec<Entry<'a, 'i>> {
    let mut entries: Vec<Entry<'a, 'i>> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

fn known(
    key: &Spanned<std::borrow::Cow<'_, str>>,
    keys: &[&'static str],
    at: &impl Fn(Range<usize>) -> Origin,
) -> Result<String, Error> {
    let nearest = nearest(key.get_ref(), keys);
    if nearest == key.get_ref() {
        return Ok(nearest.to_string());
    }
    Err(Error::UnknownKey { origin: at(key.span()), key: key.get_ref().to_string(), nearest: nearest.to_string() })
}

fn list(
    schema: &Schema,
    value: &Spanned<DeValue<'_>>,
    at: &impl Fn(Range<usize>) -> Origin,
) -> Result<Vec<Table>, Error> {
    let wrong = |span: Range<usize>| Error::Syntax {
        origin: at(span),
        message: format!("`{0}` is a list of tables: each begins with [[{0}]]", schema.list),
    };
    let items = value.get_ref().as_array().ok_or_else(|| wrong(value.span()))?;
    let mut tables = Vec::new();
    for item in items.iter() {
        let entries = item.get_ref().as_table().ok_or_else(|| wrong(item.span()))?;
        let mut table = Table::new();
        for (key, value) in in_order(entries) {
            table.insert(known(key, schema.list_keys, at)?, scalar(key.get_ref(), value, at)?);
        }
        tables.push(table);
    }
    Ok(tables)
}

fn scalar(key: &str, value: &Spanned<DeValue<'_>>, at: &impl Fn(Range<usize>) -> Origin) -> Result<Value, Error> {
    let origin = at(value.span());
    match value.get_ref() {
        DeValue::String(text) => {
            let shown = format!("\"{text}\"");
            Ok(Value { origin, shown, text: Some(text.to_string()), integer: None, boolean: None })
        }
        DeValue::Integer(integer) => {
            let parsed = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
            Ok(Value { origin, shown: integer.to_string(), text: None, integer: parsed, boolean: None })
        }
        DeValue::Boolean(boolean) => {
            Ok(Value { origin, shown: boolean.to_string(), text: None, integer: None, boolean: Some(*boolean) })
        }
        _ => Err(Error::Syntax { origin, message: format!("`{key}` is a number, true or false, or text in quotes") }),
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

/// Whether `name` was probably meant to be `known`: its beginning, or one wrong character in three.
fn is_slip(name: &str, known: &str) -> bool {
    known.starts_with(name) || 3 * distance(name, known) <= known.len()
}

/// The known name that is most likely meant by `name`: itself, one that begins so, the one with the fewest edits.
fn nearest(name: &str, known: &[&'static str]) -> &'static str {
    let unlikeness = |candidate: &&&'static str| match distance(name, candidate) {
        edits if edits > 0 && candidate.starts_with(name) => 1,
        edits => edits,
    };
    known.iter().min_by_key(unlikeness).expect("every kind of file has keys")
}

/// Levenshtein's distance: how many characters must be inserted, removed or replaced.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (removed, from) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = removed + 1;
        for (at, to) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[at + 1];
            row[at + 1] = replaced.min(diagonal + 1).min(row[at] + 1);
        }
    }
    row[right.len()]
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { path, line } => write!(formatter, "{}:{line}", path.display()),
            Origin::Environment(name) => write!(formatter, "variable {name}"),
            Origin::Flag(name) => write!(formatter, "flag {name}"),
            Origin::Default => write!(formatter, "default"),
        }
    }
}
