//! What is decided when a snapshot goes from one node to another: whom to ask, what an answer means, what is here already,
//! and what is said to who asks. No thread, socket or clock: [`super::run`] has those, and the simulator others.
//!
//! ```text
//!   who fetches:  [`here`] ──▶ [`Sources`] ──question──▶ ┄┄┄ ──▶ [`Shelf`]  :who serves
//!                 snapshot::Receiver ◀──[`Source::judge`], [`Source::is_refusal`]── ┄┄┄ ◀──answer──╯
//! ```

mod here;
mod shelf;
mod sources;

pub use here::{Here, here};
pub use shelf::{Finding, Shelf};
pub use sources::{Asked, Source, Sources, Unfit};
