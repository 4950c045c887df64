//! Client sessions: a request that is sent twice is in the log once and gets one answer.
//!
//! A client registers, and the index of the registration is its session's id. It numbers its requests from 1, may
//! have many in flight, and says with each the lowest number that it has no answer to. Two parts look after it:
//!
//! - [`Sessions`], the table: fed with every committed session entry in the order of the log, and so equal on all
//!   nodes at equal index. It knows which numbers are done, and keeps the answers that the client may still ask for.
//! - [`Admission`], on the leader alone, made anew when its no-op is applied: what it has put into its log since, on
//!   top of the table. It decides whether a request goes into the log.
//!
//! ```text
//!   numbers of one session:   1 2 3 │ 4 5 6 7 │ 8 9 10 │ 11 │ 12 13 ...
//!                             stale │ answers │ pending│next│ gap: refused until 11 is sent
//!                                   first     next in  expected by
//!                                             table    the admission
//! ```
//!
//! # Invariants
//!
//! - The numbers of a session enter the log in order, without a gap, each once: a number is admitted only if it is
//!   the one behind all that are done and pending. One that is refused for any reason is not passed, so all behind it
//!   are refused as a gap until the client sends again from there.
//! - The table's state follows from the log alone: sessions go by last use in log order, never by a clock.
//! - Bounds: [`SESSIONS_MAX`] sessions; per session [`SESSION_ANSWERS_MAX`] numbers and [`SESSION_ANSWER_BYTES_MAX`]
//!   bytes of answers. The answer to an append is its index and takes no bytes.
//!
//! # Caveats
//!
//! When the answers of a session exceed their bytes the oldest go first. Such a request is done and will not be done
//! again, but its answer is not known any more ([`Answered::answer`] is `None` for a machine's command).
//!
//! [`SESSIONS_MAX`]: crate::limits::SESSIONS_MAX
//! [`SESSION_ANSWERS_MAX`]: crate::limits::SESSION_ANSWERS_MAX
//! [`SESSION_ANSWER_BYTES_MAX`]: crate::limits::SESSION_ANSWER_BYTES_MAX

mod admission;
mod encoding;
mod session;
mod table;

#[cfg(test)]
mod tests;

pub use admission::{Admission, Admit, Lane};
pub use encoding::Restoring;
pub use session::Answered;
pub use table::{Decision, Limits, Sessions};
