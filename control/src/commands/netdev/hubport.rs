//! `netdev_add type=hubport`: a port of a hub (QEMU `net/hub.c`).

use crate::commands::State;
use crate::commands::args::Args;
use crate::commands::state::empty;
use crate::model::Change;
use crate::qmp::error::QmpError;
use engine::Attachments;
use engine::topology::model::HUB_BACKLOG_MOST;
use serde_json::{Map, Value};

impl State {
    /// Makes a port of a hub.
    pub(super) fn add_hubport(&mut self, args: Map<String, Value>) -> Result<Value, QmpError> {
        let name = args.text("id").to_owned();
        let hub = args.int("hubid").and_then(|id| i32::try_from(id).ok());
        let hub = hub.ok_or_else(|| QmpError::generic("Parameter 'hubid' expects int32_t"))?;
        if args.uint("hub-backlog").is_some_and(|frames| frames > u64::from(HUB_BACKLOG_MOST)) {
            let most = format!("Parameter 'hub-backlog' expects a value of at most {HUB_BACKLOG_MOST}");
            return Err(QmpError::generic(most));
        }
        let netdev = args.maybe("netdev").map(str::to_owned);
        let link_up = args.flag("link").unwrap_or(true);
        let (id, change) = self.net.add_hubport(&name, hub, netdev.as_deref(), link_up, args)?;
        if change == Change::Plan
            && let Err(error) = self.binding.commit(&self.net, Attachments::default())
        {
            self.net.remove_client(id);
            return Err(error);
        }
        Ok(empty())
    }
}
