//! A worker: one thread, pinned where asked, that owns queues and moves their frames.
//!
//! One turn has these phases; each is a method of [`turn::Worker`]:
//!
//! | phase | does | may not |
//! |---|---|---|
//! | adopt | takes a newer plan, attaches and detaches what came by the inbox, acknowledges | touch what was removed |
//! | links | takes bursts from other workers | read sources first: their room is what links leave |
//! | retry | sends what waits in backlogs | overtake it |
//! | sources | lets frames gather whose receiver is behind; lends bursts, runs filters and the switch, hands frames to destinations | copy where a lent frame will do |
//! | settle | flush, one submission, account what the kernel took | return lent bytes before it |
//! | release | gives lent buffers back; where there are few rings and nothing names their bytes, looks at them again | |
//! | notify | one fence, then wakes whoever asked to be told of what was written or given back | come before a frame that could go |
//! | housekeeping | buffers that came home, filters' ticks | run in every turn |
//! | idle | poll, pause, sleep | sleep before a last look |

pub mod clock;
pub mod idle;
pub mod inbox;
mod inject;
pub mod link;
mod outlets;
pub mod place;
pub mod regimes;
mod sources;
pub mod turn;

pub use turn::Worker;
