//! The differential test: the same lines to the reference and to netdevd, and their answers side by side.
//!
//! The expectation of a case is never stored: the reference runs beside us and says what is right. Cases are data
//! ([`case`]), written by hand in `tests/cases/*.cases` or made from the option tables in `tests/cases/*.options`
//! ([`table`]). [`side`] drives one program, [`compare`] judges, [`schema`] compares whole introspection replies, and
//! [`differences`] is the one table of what is meant to differ.

pub mod case;
pub mod compare;
pub mod differences;
pub mod schema;
pub mod side;
pub mod table;
