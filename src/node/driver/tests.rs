//! A driver alone, on a simulated disk: what is bounded, what is forgotten, what waits for what.

mod apply;
mod brought;
mod changes;
mod checkpoint;
mod clients;
mod damaged;
mod durable;
mod ends;
mod format;
mod forwards;
mod hangs;
mod history;
mod installs;
mod lease;
mod lives;
mod map_alone;
mod offers;
mod purging;
mod reads;
mod retention;
mod rig;
mod room;
mod snapshots;
