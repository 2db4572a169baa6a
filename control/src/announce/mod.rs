//! `announce-self`: when the guests of which nics are announced, and how often (QEMU `net/announce.c`).

mod schedule;
mod timers;

pub use schedule::{Parameters, Schedule};
pub use timers::Announcements;
