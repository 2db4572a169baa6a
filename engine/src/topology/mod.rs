//! The description of the world as pure values: what control says, and what a worker reads.

pub mod model;
