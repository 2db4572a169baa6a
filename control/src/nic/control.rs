//! A nic's control queue, served on this thread when its guest kicks, and what the guest's driver asked for by it.

use crate::reactor::{Reactor, Token};
use engine::backend::nic::{Asked, Command, ControlQueue, Mac, Outcome, Published};
use engine::virtq::{Position, RingConfig};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

/// Commands served in one go, so that a guest that floods its queue leaves time for others.
const COMMANDS: usize = 32;

/// A nic's control queue.
pub(super) struct Control {
    /// What the driver asked for since its reset.
    pub(super) asked: Asked,
    /// The same as workers see it.
    pub(super) published: Arc<Published>,
    /// The driver has a control queue to name its pairs by: what it asked for counts. Some front-ends keep the queue to themselves.
    pub(super) served: bool,
    /// Commands wait for which no kick will come.
    pub(super) more: bool,
    /// A change of the filter is told of: once, until somebody looks at it.
    pub(super) armed: bool,
    /// The ring, while the session runs it.
    config: Option<RingConfig>,
    /// The same at work; none once it stopped for cause.
    queue: Option<ControlQueue>,
    reactor: Rc<Reactor>,
    token: Token,
}

/// What a turn at the queue came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Served {
    /// The filter was set.
    pub(super) filter: bool,
    /// The nic has another address.
    pub(super) address: bool,
    /// Other pairs are in use.
    pub(super) pairs: bool,
    /// The ring stopped for cause.
    pub(super) fault: Option<String>,
}

impl fmt::Debug for Control {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Control").field("asked", &self.asked).field("config", &self.config).finish()
    }
}

impl Control {
    /// For a nic of that address; `token` is what its kicks come for.
    pub(super) fn new(mac: Mac, reactor: Rc<Reactor>, token: Token) -> Self {
        let asked = Asked::new(mac);
        let published = Arc::new(Published::new(&asked.filter, asked.offloads));
        Self {
            asked,
            published,
            served: false,
            more: false,
            armed: true,
            config: None,
            queue: None,
            reactor,
            token,
        }
    }

    /// Forgets features and commands, for a driver that begins anew.
    pub(super) fn reset(&mut self, mac: Mac) {
        self.asked = Asked::new(mac);
        self.served = false;
        self.publish();
    }

    /// Forgets commands; the features stay.
    pub(super) fn forget(&mut self, mac: Mac) {
        self.asked.forget(mac);
        self.served = false;
        self.publish();
    }

    /// A driver agreed to these features.
    pub(super) fn agree(&mut self, features: u64, mac: Mac) {
        self.reset(mac);
        self.asked.agree(features);
        self.publish();
    }

    /// Lets the workers know.
    pub(super) fn publish(&self) {
        self.published.publish(&self.asked.filter, self.asked.offloads);
    }

    /// Runs the ring. One that stands at its beginning is a new driver's, whatever the front-end said of a reset.
    pub(super) fn start(&mut self, config: RingConfig, mac: Mac) -> Result<(), String> {
        let Some(kick) = &config.kick else {
            return Err("a control queue needs a kick, as nobody polls it".into());
        };
        let queue = ControlQueue::new(&config).map_err(|fault| fault.to_string())?;
        // Edges, and never read: whoever holds the other end could make a read wait.
        self.reactor.watch_edges(kick, self.token).map_err(|e| format!("its kick: {}", e.desc()))?;
        if config.position == Position::START {
            self.forget(mac);
        }
        (self.config, self.queue) = (Some(config), Some(queue));
        (self.served, self.more) = (true, true);
        Ok(())
    }

    /// Stops the ring, and says where.
    pub(super) fn stop(&mut self) -> Option<Position> {
        self.fold();
        self.more = false;
        let config = self.config.take()?;
        if let Some(kick) = &config.kick {
            // Not by closing: the VMM has the file, too.
            self.reactor.forget(kick);
        }
        Some(config.position)
    }

    /// Notes where the ring stands, and ends work on it.
    fn fold(&mut self) {
        if let (Some(queue), Some(config)) = (self.queue.take(), &mut self.config) {
            config.position = queue.position();
        }
    }

    /// Entries of the ring, while the session runs it.
    pub(super) fn size(&self) -> Option<u16> {
        self.config.as_ref().map(|config| config.size)
    }

    /// Does what the driver asks for, on a nic of that many pairs; the answers show with [`Control::answer`].
    pub(super) fn serve(&mut self, pairs: u16) -> Served {
        let mut served = Served::default();
        let Some(queue) = &mut self.queue else { return served };
        let asked = &mut self.asked;
        let mut changed = false;
        let done = queue.serve(COMMANDS, |command: Command| {
            let outcome = asked.execute(command, pairs);
            served.filter |= matches!(outcome, Outcome::Filter | Outcome::Address);
            served.address |= outcome == Outcome::Address;
            served.pairs |= outcome == Outcome::Pairs;
            changed |= matches!(outcome, Outcome::Filter | Outcome::Address | Outcome::Offloads);
            outcome != Outcome::Refused
        });
        self.more = done == Ok(false);
        served.fault = done.err().map(|fault| fault.to_string());
        if changed {
            self.publish();
        }
        served
    }

    /// Shows the driver its answers, when what it asked for is in force; a ring that makes no sense ends here.
    pub(super) fn answer(&mut self, served: &Served) {
        if let Some(queue) = &mut self.queue {
            queue.publish();
        }
        if served.fault.is_some() {
            self.fold();
        }
    }
}
