//! `netdev_add type=user` (QEMU 10.0 `net_init_slirp`), and such a netdev when its process has died.

use super::Opening;
use super::tap::{Info, cut};
use crate::apply::binding::OPEN_LIMIT;
use crate::apply::jobs::Product;
use crate::commands::args::Args;
use crate::commands::pending::Pending;
use crate::commands::state::{empty, timestamp};
use crate::commands::{Outcome, State};
use crate::model::ClientId;
use crate::options::netdev::UserOptions;
use crate::qmp::error::QmpError;
use crate::qmp::events::Event;
use crate::reactor::Ready;
use crate::user::claims::STREAM;
use crate::user::forwarded::Forwarded;
use crate::user::network::{self, wanted};
use crate::user::rule::{GuestTarget, refused};
use crate::user::{Ended, Setup, Started, start};
use serde_json::{Map, Value, json};
use std::sync::Arc;

impl State {
    pub(super) fn add_user(&mut self, args: Map<String, Value>) -> Outcome {
        let read = serde_json::from_value(Value::Object(args.clone()));
        let options: UserOptions = match read {
            Ok(options) => options,
            Err(error) => return Err(QmpError::generic(error.to_string())).into(),
        };
        let wanted = match wanted(&options) {
            Ok(wanted) => wanted,
            Err(error) => return Err(error).into(),
        };
        let name = args.text("id").to_owned();
        let mut streams = Vec::new();
        // A netdev of that name that is being opened may have chardevs, too: those stay.
        let before = self.users.claims.last();
        for forward in &wanted.guest_forwards {
            if let GuestTarget::Device(device) = &forward.to {
                // One that is only described is opened off this thread.
                let claimed = device
                    .strip_prefix("chardev:")
                    .map(|id| self.claim_guest_forward(&name, forward.port, id, streams.len()));
                match claimed.transpose() {
                    Ok(stream) => streams.push(stream),
                    Err(error) => {
                        self.release_guest_forwards(before);
                        return Err(error).into();
                    }
                }
            }
        }
        let opening = Opening {
            info: Info::Lines(vec![cut(network::info(&wanted, &options))]),
            ..Opening::new("user", args)
        };
        let backends = Arc::clone(&self.binding.backends);
        let outcome = self.open(opening, move || {
            let (rules, forwards) = (wanted.rules.clone(), wanted.forwards.clone());
            let setup = Setup::new(&name, wanted, streams);
            Product::User(setup.and_then(|setup| {
                let refused = |at: usize| refused(rules.get(at).map_or("", String::as_str));
                let forwards = Forwarded::all(forwards).map_err(refused)?;
                start(backends.as_ref(), Arc::new(setup), forwards).map(Box::new)
            }))
        });
        if !matches!(outcome, Outcome::Later(_)) {
            self.release_guest_forwards(before);
        }
        outcome
    }

    /// A process runs: the netdev enters the model and the engine.
    pub(in crate::commands) fn user_opened(
        &mut self,
        opening: Opening,
        started: Started,
    ) -> Result<Value, QmpError> {
        let Started { opened, process, conversation, setup, forwards } = started;
        let name = opening.name.clone();
        let entered = self.enter(opening, opened);
        let (client, counters) = entered.inspect_err(|_| self.forget_guest_forwards(&name))?;
        let counters = counters.into_iter().next().unwrap_or_default();
        self.users.add(client, setup, process, conversation, forwards, counters);
        self.tell_guest_forwards(&name);
        Ok(empty())
    }

    /// A process did not start: what its netdev had is free again.
    pub(in crate::commands) fn user_failed(&mut self, opening: &Opening) {
        self.net.unreserve(&opening.name);
        self.forget_guest_forwards(&opening.name);
    }

    /// Handles what happened to a descriptor of [`crate::reactor::Part::User`].
    pub fn user_ready(&mut self, event: Ready) {
        if event.token.role == STREAM {
            return self.guest_forward_ended(event.token.object);
        }
        let Ended { again, retired } = self.users.ready(event, &mut self.net, &mut self.binding);
        for retired in retired {
            self.binding.let_go(retired);
        }
        for (client, setup, forwards) in again {
            let backends = Arc::clone(&self.binding.backends);
            let job = move || Product::User(start(backends.as_ref(), setup, forwards).map(Box::new));
            match self.binding.jobs.start(OPEN_LIMIT, job) {
                Ok(ticket) => drop(self.pending.insert(ticket, Pending::Restart(client))),
                Err(error) => self.user_restarted(client, Err(format!("no thread to start it on: {error}"))),
            }
        }
    }

    /// Starting a process again ended.
    pub(in crate::commands) fn user_restarted(&mut self, client: ClientId, result: Result<Started, String>) {
        if let Some((netdev, reason)) = self.users.restarted(client, result, &mut self.net, &mut self.binding)
        {
            self.tell_guest_forwards(&netdev);
            let data = Some(json!({"netdev-id": netdev, "reason": reason}));
            self.of_jobs.push(Event { name: "NETDEV_USER_RESTARTED", data, timestamp: timestamp() });
        }
    }
}
