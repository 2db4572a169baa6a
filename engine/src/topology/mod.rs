//! The description of the world as pure values, what a worker reads of it, and the cell where control and workers meet.

pub mod cell;
pub mod model;
pub mod plan;
pub mod switch;
