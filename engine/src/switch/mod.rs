//! From a source to its destinations: the published routes, and the walk over them.
//!
//! The switch knows masks and nodes; what a port or a filter is stays behind [`Outlet`].

pub mod forward;
pub mod routes;

pub use forward::{Outlet, Walk, forward};
pub use routes::Routes;
