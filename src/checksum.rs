//! CRC-32 behind a type, so that a checksum is never mistaken for a length or an id.
//!
//! Two kinds are in use, and the difference matters:
//! - **unsalted** ([`Checksum::of`]): over a payload. It is made once, by the client, is the same on every node and
//!   on every disk, and so can be checked at each hop and repaired from a peer.
//! - **salted** ([`Checksum::salted`]): over what one segment says about itself. The salt differs per segment, so
//!   bytes of another segment, or of an older life of this file, never pass.

use std::fmt;

/// A CRC-32 (IEEE) value. Finds every burst up to 32 bits and every odd number of flipped bits; it is no protection
/// against an adversary, which is what TLS is there for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Checksum(pub u32);

impl Checksum {
    /// The checksum of a payload.
    pub fn of(bytes: &[u8]) -> Checksum {
        Checksum(crc32fast::hash(bytes))
    }

    /// The checksum of several pieces as if they were one, started from a segment's salt.
    pub fn salted(salt: u64, pieces: &[&[u8]]) -> Checksum {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&salt.to_le_bytes());
        for piece in pieces {
            hasher.update(piece);
        }
        Checksum(hasher.finalize())
    }

    /// The checksum of what this one is of, with `bytes` behind it.
    pub fn continued(self, bytes: &[u8]) -> Checksum {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.0);
        hasher.update(bytes);
        Checksum(hasher.finalize())
    }
}

impl fmt::Debug for Checksum {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:08x}", self.0)
    }
}

impl fmt::Display for Checksum {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:08x}", self.0)
    }
}
