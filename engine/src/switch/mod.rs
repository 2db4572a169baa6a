//! From a source to its destinations: the published routes, and the walk over them.
//!
//! The walk knows masks and nodes; what a port or a filter is stays behind [`Outlet`].

mod cross;
mod forms;
pub mod forward;
pub mod routes;
mod sort;
pub mod state;
pub mod table;
#[cfg(all(test, not(loom)))]
mod testing;
#[cfg(all(test, not(loom)))]
mod tests;
mod walk;

pub use forward::{Outlet, forward};
pub use routes::Routes;
pub use state::State;
pub use walk::{Extent, Walk};
