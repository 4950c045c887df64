//! Reads everything durable of an open log again.

use super::{Error, Wal};
use crate::disk::Directory;
use crate::wal::{Checked, Severity};

/// How often a log is read again whose oldest segments were retired meanwhile.
const ATTEMPTS: usize = 3;

impl Wal {
    /// Reads everything that is durable now, past the page cache where the file system can, and checks every frame,
    /// record, seal and link of the chain as recovery does. Appends go on meanwhile; what they add is not looked at. On
    /// this thread, at the speed of the disk; [`Wal::scrub`] does it slowly. Files are opened anew, so that the log's own
    /// stay open.
    ///
    /// # Errors
    /// If a file cannot be opened, or is none of this log. Damage, also what cannot be read, is a finding.
    pub fn verify(&self) -> Result<Checked, Error> {
        let shown = self.shared.directory.root().display().to_string();
        let files = Directory::open(self.shared.directory.root()).map_err(Error::Disk)?;
        for attempt in 1.. {
            let extent = self.shared.log().extent();
            let checked = extent.check(&files);
            let is_bad = |checked: &Checked| checked.findings.iter().any(|found| found.severity > Severity::Note);
            let mut log = self.shared.log();
            if let Ok(checked) = &checked {
                log.mark_verified(checked);
            }
            // The oldest segments go first. One that went may have been in other use before it was read.
            let is_stale = extent.segments().first().is_some_and(|&oldest| !log.has_segment(oldest));
            if attempt < ATTEMPTS && is_stale && checked.as_ref().map_or(true, is_bad) {
                continue;
            }
            return checked.map_err(|error| Error::log(error, &shown)).map(|mut checked| {
                if is_stale {
                    checked.leave_those_of(|number| log.has_segment(number));
                }
                checked
            });
        }
        unreachable!("the last attempt returns")
    }
}
