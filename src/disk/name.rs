//! Which names a file may have: at most two parts, and no way out.

use std::io;

/// Refuses a name that is absolute, empty, leads upwards, or has more than two parts.
pub(crate) fn check(name: &str) -> io::Result<()> {
    let parts = name.split('/');
    let fine = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    match parts.clone().count() <= 2 && parts.clone().all(fine) {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a name within the directory")),
    }
}
