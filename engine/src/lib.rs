//! The data plane of netdevd: frames enter by a port, pass filters, cross a pair, hubs or switches, and leave by a port.
//!
//! ```text
//!        control thread                                    worker (one per core)
//!  topology -> diff -> plan -------------+      +---------------- one turn ------------------------+
//!        open fds, map rings (off thread)|      | adopt plan, inbox, read the clock once           |
//!                                        +cell->| rx queue -> filters -> peer | hub | switch       |
//!        wait for every worker's word <--acks---|          -> filters -> tx queue -> flush         |
//!        retire what is old, then reply         | links to other workers, housekeeping, idle       |
//!                                               +--------------------------------------------------+
//! ```
//!
//! Dependencies run one way: `worker` -> `switch`, `filter`, `backend`, `offload` -> `port`, `vhost`, `virtq`, `burst`,
//! `mem`, `wire`, `uring`; `topology` knows nothing but `std` (and `sync`, which is loom under test). A test holds this.
#![deny(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod backend;
pub mod burst;
pub mod colo;
mod engine;
pub mod filter;
pub mod mem;
pub mod offload;
pub mod port;
mod prefetch;
pub mod switch;
pub mod sync;
pub mod topology;
pub mod uring;
pub mod vhost;
pub mod virtq;
pub mod wire;
pub mod worker;

pub use engine::{
    Attachments, ClientStats, Config, Engine, EngineError, QueueStats, Retired, StationStats, Stats,
    SwitchStats, WorkerStats,
};
