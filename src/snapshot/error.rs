//! What can be wrong with a snapshot.

use super::manifest::FORMAT_VERSION;
use crate::codec;
use crate::disk;
use crate::types::ClusterId;

/// Why there is no snapshot to work with, or none was made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("snapshot {name} is damaged: {damage}")]
    Damaged { name: String, damage: Damage },
    #[error("snapshot {name} has format {found}, and this program knows formats up to {FORMAT_VERSION}")]
    NewerFormat { name: String, found: u32 },
    #[error("snapshot {name} is of cluster {found}, not {expected}")]
    WrongCluster { name: String, expected: ClusterId, found: ClusterId },
    /// It is of the same point.
    #[error("snapshot {name} is there already, and holds another state")]
    Exists { name: String },
    #[error("the state has more than {bytes_max} bytes, which is what a snapshot holds")]
    TooLarge { bytes_max: u64 },
    /// What is left is the log's.
    #[error("a snapshot needs {needed_bytes} bytes of room, and {free_bytes} are free")]
    NoRoom { needed_bytes: u64, free_bytes: u64 },
    #[error(transparent)]
    Disk(#[from] disk::Error),
}

/// What is not as it was written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Damage {
    #[error("it has no file `{file}`")]
    Missing { file: &'static str },
    #[error("its manifest does not begin as one, or is torn, rotten or cut short")]
    Manifest,
    #[error("its manifest says what cannot be: {0}")]
    Content(codec::Error),
    #[error("its manifest is that of {found}")]
    Misplaced { found: String },
    #[error("its file `chunks` has {found} bytes, not {expected}")]
    Length { expected: u64, found: u64 },
    #[error("chunk {number} is not the one that was written there")]
    Chunk { number: u32 },
    #[error("its chunks are intact, and hold no state that this program knows: {0}")]
    State(codec::Error),
}

impl Error {
    /// The disk, or this user's share of it, is full.
    pub fn is_no_space(&self) -> bool {
        matches!(self, Error::NoRoom { .. }) || matches!(self, Error::Disk(error) if error.is_no_space())
    }

    /// A chunk is another one, or the disk says that it cannot be read: another node may have it.
    pub fn is_rot(&self) -> bool {
        match self {
            Error::Damaged { damage, .. } => matches!(damage, Damage::Chunk { .. }),
            Error::Disk(error) => error.is_media_error(),
            _ => false,
        }
    }

    /// What to do about it.
    pub fn next_step(&self) -> String {
        match self {
            Error::Damaged { name, .. } => format!(
                "keep {name}: an older snapshot and the log are used if they reach; else the node needs one of a peer"
            ),
            Error::NewerFormat { .. } => "use the newer program that wrote it".to_owned(),
            Error::WrongCluster { .. } => "check the directory: it holds another cluster's data".to_owned(),
            Error::Exists { .. } => "keep both, and report it: nodes of one cluster have different states".to_owned(),
            Error::TooLarge { .. } => {
                "make the state smaller, or keep it in a state machine with a disk of its own".to_owned()
            }
            Error::NoRoom { .. } => "free space, or use a larger disk: the next snapshot is tried by itself".to_owned(),
            Error::Disk(error) => error.next_step().to_owned(),
        }
    }
}
