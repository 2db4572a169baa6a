//! `set_link`.

use super::State;
use super::args::Args;
use super::state::empty;
use crate::qmp::error::QmpError;
use crate::qmp::events::Event;
use engine::Attachments;
use serde_json::{Map, Value};

impl State {
    /// Raises or lowers every client of a name.
    pub(super) fn set_link(
        &mut self,
        args: &Map<String, Value>,
        events: &mut Vec<Event>,
    ) -> Result<Value, QmpError> {
        if self.net.set_link(args.text("name"), args.flag("up").unwrap_or(true))? {
            self.binding.commit(&self.net, Attachments::default())?;
            self.settle_links(events);
        }
        Ok(empty())
    }
}
