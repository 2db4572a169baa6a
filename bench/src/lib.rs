//! Load tools and measurements of netdevd.
//!
//! Three layers, each used by the next: *primitives* (histogram, pinning, canary, placement), *load* (UDP sender and
//! sink, round trips, QMP rate), and *compare*, which runs netdevd beside its peers and prints ratios.
//! The criterion benches live in `bench/benches` (its README says how to add one).

pub mod args;
pub mod canary;
pub mod compare;
pub mod failure;
pub mod histogram;
pub mod link;
pub mod load;
pub mod pktgen;
pub mod placement;
pub mod proc;
pub mod qmp;
pub mod sched;
