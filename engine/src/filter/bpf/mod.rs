//! Classic BPF: the programs that pcap filter expressions are compiled to, and their run over lent frames.
//!
//! ```text
//! expression --libpcap--> instructions --Program::load--> checked program --Matcher--> mask of frames
//! ```
//! The machine is that of McCanne and Jacobson, *The BSD Packet Filter* (USENIX Winter 1993), with the instructions that
//! libpcap gives out today.

mod compile;
mod matcher;
mod program;
mod run;

pub use compile::{CompileError, compile};
pub use matcher::{Matcher, Selection, selection};
pub use program::{Insn, LoadError, Program};

#[cfg(test)]
mod tests;
