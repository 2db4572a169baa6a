//! From the model to the running engine: opens what is new, commits the topology, gives back what is old.
//!
//! ```text
//! command -> model checks -> Jobs: open off the control thread -> model changes -> DataPlane::commit
//!                                                    reply  <-  Jobs: scripts and closing  <- retired
//! ```
//!
//! A failure before the commit leaves engine and model as they were. The control thread itself only ever waits for
//! the workers' acknowledgement, which the engine bounds.

pub mod backends;
pub mod binding;
pub mod carriers;
#[cfg(test)]
pub mod fake;
pub mod jobs;
pub mod plane;
mod system;

pub use backends::{
    Backends, DownScript, FilterKind, FilterRequest, Launched, OpenFilter, Opened, Pair, Plugged, Vdpa,
};
pub use binding::Binding;
pub use jobs::{Jobs, Ticket};
pub use plane::DataPlane;
pub use system::SystemBackends;

#[cfg(test)]
mod tests;
