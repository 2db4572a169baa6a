//! Objects that are no filters: threads by name, and comparisons of two machines.

use super::Net;
use serde_json::{Map, Value};

/// An object that sits on no netdev.
#[derive(Debug, Clone, PartialEq)]
pub struct Plain {
    /// Its number for life.
    pub number: u32,
    /// Its id.
    pub name: String,
    /// Its type.
    pub driver: &'static str,
    /// Its properties.
    pub own: Map<String, Value>,
}

impl Net {
    /// The object of that id, if it is no filter.
    #[must_use]
    pub fn plain(&self, name: &str) -> Option<&Plain> {
        self.plain.iter().find(|object| object.name == name)
    }

    /// All objects that are no filters, oldest first.
    pub fn plains(&self) -> impl Iterator<Item = &Plain> {
        self.plain.iter()
    }

    /// All of them, open to change.
    pub fn plains_mut(&mut self) -> impl Iterator<Item = &mut Plain> {
        self.plain.iter_mut()
    }

    /// Adds an object whose id is free; gives its number.
    pub fn add_plain(&mut self, name: &str, driver: &'static str, own: Map<String, Value>) -> u32 {
        self.last_plain += 1;
        self.plain.push(Plain { number: self.last_plain, name: name.to_owned(), driver, own });
        self.last_plain
    }

    /// Takes an object away.
    pub fn remove_plain(&mut self, name: &str) -> Option<Plain> {
        let at = self.plain.iter().position(|object| object.name == name)?;
        Some(self.plain.remove(at))
    }
}
