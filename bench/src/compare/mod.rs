//! netdevd beside its peers, in the same minutes on the same CPUs: what `scripts/compare` runs.
//!
//! A figure of a shared machine means nothing by itself, so everything here is a ratio: each measurement is a short
//! *slice*, the peers take turns within a *round*, and a row's ratio is the median over the rounds' own ratios.
//! A slice during which the host took a CPU away is repeated ([`lab::Lab::slice`]).

pub mod account;
pub mod af_xdp;
pub mod churn;
pub mod coalesce;
pub mod filters;
pub mod idle;
pub mod lab;
pub mod link;
pub mod netns;
pub mod pair;
pub mod peer;
pub mod plot;
pub mod process;
pub mod qmp;
pub mod rounds;
pub mod saved;
pub mod soak;
pub mod stats;
pub mod switch;
pub mod table;
pub mod tap;
pub mod user;
pub mod vhost;
pub mod wire;
pub mod workload;
