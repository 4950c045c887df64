//! What can be wrong with a configuration.

use std::io;
use std::path::PathBuf;

use super::document::Origin;
use crate::cli::exit::{Exit, Failure};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{origin}: {message}")]
    Syntax { origin: Origin, message: String },
    #[error("{origin}: unknown key `{key}`")]
    UnknownKey { origin: Origin, key: String, nearest: String },
    #[error("{}: the key `{key}` is missing", path.display())]
    Missing { path: PathBuf, key: String, allowed: String },
    #[error("{origin}: {invalid}")]
    Invalid { origin: Origin, invalid: Box<Invalid> },
}

/// A value that is not allowed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{key} = {value} is not allowed: it must be {allowed}")]
pub struct Invalid {
    pub key: String,
    pub value: String,
    /// Completes "it must be ..".
    pub allowed: String,
    pub next_step: String,
}

impl Error {
    pub fn next_step(&self) -> String {
        match self {
            Error::Unreadable { .. } => "name a file that exists and that this user may read".to_string(),
            Error::Syntax { .. } => "mend the line; the file is TOML".to_string(),
            Error::UnknownKey { nearest, .. } => format!("did you mean `{nearest}`? docs/operations.md lists all keys"),
            Error::Missing { key, allowed, .. } => format!("add `{key}`: {allowed}"),
            Error::Invalid { invalid, .. } => invalid.next_step.clone(),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::new(Exit::Usage, error.to_string(), error.next_step())
    }
}
