//! What happens when a job ends.

use super::args::Args;
use super::matching::NewExpression;
use super::netdev::{NewPasst, Opening, Way};
use super::object::NewFilter;
use super::state::empty;
use super::usernet::{Asked, Rule};
use super::{Outcome, State, hmp};
use crate::apply::Ticket;
use crate::apply::jobs::{Ended, Product};
use crate::model::ClientId;
use crate::passt::{LaunchError, START_LIMIT};
use crate::qmp::error::QmpError;
use serde_json::{Map, Value};

/// What goes when its filters hold nothing any more.
#[derive(Debug, Clone, Copy)]
pub(super) enum Leaving {
    /// `netdev_del`.
    Netdev,
    /// `device_del`.
    Device,
}

/// A command that waits for a job.
pub(super) enum Pending {
    /// `netdev_add`.
    Netdev(Opening),
    /// `netdev_add` of a `socket` with connections: its host is being looked up.
    Connections(Map<String, Value>, Way),
    /// `object-add` of a filter.
    Filter(NewFilter),
    /// `object-del` of a filter that held frames.
    Drain(String),
    /// `netdev_del` or `device_del`, with its arguments, of what has filters that held frames.
    Leave(Leaving, Map<String, Value>),
    /// `object-del` of a comparison that used these chardevs.
    Colo(Vec<String>),
    /// `qom-set` of a filter's expression.
    Expression(NewExpression),
    /// `chardev-add` of that id.
    Chardev(String),
    /// No command: an interface came back, and the netdev of that client is opened again on these workers.
    Reopen(ClientId, Vec<usize>),
    /// No command: the switch of that client's `vde` netdev is joined again.
    Replug(ClientId),
    /// `netdev_add` of a `passt`.
    Passt(NewPasst),
    /// No command: the passt of that client is started again.
    Respawn(ClientId),
    /// No command: the process of that client's `user` netdev is started again.
    Restart(ClientId),
    /// Processes of `user` netdevs are asked.
    Asked(Asked),
    /// A forward of a `user` netdev.
    Forward(ClientId, Rule),
    /// `netdev_del`, `object-del`.
    Close,
}

impl State {
    /// Finishes the commands whose jobs ended, and gives up those that took too long.
    pub(super) fn finish_jobs(&mut self) -> Vec<(Ticket, Result<Value, QmpError>)> {
        let mut replies = Vec::new();
        for ended in self.binding.jobs.ended() {
            let (job, product) = match ended {
                Ended::Done(job, product) => (job, Some(product)),
                Ended::TimedOut(job) => (job, None),
                Ended::TooLate(product) => {
                    self.binding.discard(product);
                    continue;
                }
            };
            let Some(pending) = self.pending.remove(&job) else { continue };
            let ticket = self.continued.remove(&job).unwrap_or(job);
            let outcome = match (pending, product) {
                (Pending::Leave(leaving, args), _) => self.leave(leaving, &args),
                (pending, Some(product)) => self.finish(pending, product).into(),
                (pending, None) => self.give_up(pending).into(),
            };
            let result = match outcome {
                Outcome::Done(result) => result,
                Outcome::Later(next) => {
                    self.continued.insert(next, ticket);
                    continue;
                }
            };
            let result = if self.human.remove(&ticket) { Ok(hmp::reply(result).into()) } else { result };
            replies.push((ticket, result));
        }
        self.free_chardevs();
        replies
    }

    /// Goes on with a removal: filters hold nothing any more, or have had their time.
    fn leave(&mut self, leaving: Leaving, args: &Map<String, Value>) -> Outcome {
        let mut events = Vec::new();
        let outcome = match leaving {
            Leaving::Netdev => self.netdev_leaves(args, &mut events),
            Leaving::Device => self.device_leaves(args).into(),
        };
        self.of_jobs.append(&mut events);
        outcome
    }

    fn finish(&mut self, pending: Pending, product: Product) -> Result<Value, QmpError> {
        match (pending, product) {
            (Pending::Netdev(opening), Product::Opened(Ok(opened))) => self.netdev_opened(opening, opened),
            (Pending::Netdev(opening), Product::Opened(Err(error))) => {
                self.net.unreserve(&opening.name);
                self.unplace(&opening.workers);
                Err(error)
            }
            (Pending::Connections(args, way), Product::Address(found)) => {
                self.connections_found(args, way, found)
            }
            (Pending::Netdev(opening), Product::Vde(Ok(plugged))) => self.vde_opened(opening, plugged),
            (Pending::Netdev(opening), Product::Vde(Err(error))) => {
                self.net.unreserve(&opening.name);
                Err(error)
            }
            (Pending::Netdev(opening), Product::Vdpa(Ok(vdpa))) => self.vdpa_opened(opening, vdpa),
            (Pending::Netdev(opening), Product::Vdpa(Err(error))) => {
                self.net.unreserve(&opening.name);
                Err(error)
            }
            (Pending::Replug(client), Product::Vde(result)) => {
                self.replugged(client, result.map_err(|error| error.desc));
                Ok(empty())
            }
            (Pending::Passt(new), Product::Passt(result)) => self.passt_started(new, result),
            (Pending::Respawn(client), Product::Passt(result)) => {
                self.passt_restarted(client, result);
                Ok(empty())
            }
            (Pending::Netdev(opening), Product::User(Ok(started))) => self.user_opened(opening, *started),
            (Pending::Netdev(opening), Product::User(Err(error))) => {
                self.user_failed(&opening);
                Err(error)
            }
            (Pending::Restart(client), Product::User(result)) => {
                self.user_restarted(client, result.map(|started| *started).map_err(|error| error.desc));
                Ok(empty())
            }
            (Pending::Forward(client, rule), Product::Forwarded(result)) => {
                self.forwarded(client, &rule, result)
            }
            (Pending::Asked(asked), Product::Answers(answers)) => self.answered(asked, answers),
            (Pending::Drain(name), Product::Drained) => self.filter_drained(&name),
            (Pending::Colo(chardevs), Product::Closed) => {
                self.colo_closed(&chardevs);
                Ok(empty())
            }
            (Pending::Filter(filter), Product::Filter(Ok(made))) => self.filter_opened(filter, made),
            (Pending::Filter(filter), Product::Filter(Err(error))) => {
                self.filter_failed(&filter);
                Err(error)
            }
            (Pending::Expression(new), Product::Program(result)) => self.expression_compiled(&new, result),
            (Pending::Chardev(id), Product::Chardev(opened)) => self.chardevs.finish(&id, opened),
            (Pending::Reopen(client, workers), Product::Opened(result)) => {
                self.opened_again(client, &workers, Some(result));
                Ok(empty())
            }
            (_, product) => {
                drop(product);
                Ok(empty())
            }
        }
    }

    fn give_up(&mut self, pending: Pending) -> Result<Value, QmpError> {
        let late = |what: &str, name: &str| {
            Err(QmpError::generic(format!("{what} '{name}' did not open in time; it was given up")))
        };
        match pending {
            Pending::Netdev(opening) => {
                self.user_failed(&opening);
                self.unplace(&opening.workers);
                late("netdev", &opening.name)
            }
            Pending::Connections(args, _) => late("netdev", args.text("id")),
            Pending::Filter(filter) => {
                self.filter_failed(&filter);
                late("filter", &filter.name)
            }
            Pending::Drain(name) => self.filter_drained(&name),
            Pending::Colo(chardevs) => {
                self.colo_closed(&chardevs);
                Ok(empty())
            }
            Pending::Expression(new) => late("filter", new.filter()),
            Pending::Chardev(id) => {
                self.chardevs.abandon(&id);
                late("chardev", &id)
            }
            Pending::Reopen(client, workers) => {
                self.opened_again(client, &workers, None);
                Ok(empty())
            }
            Pending::Replug(client) => {
                self.replugged(client, Err("joining the switch took too long".into()));
                Ok(empty())
            }
            Pending::Passt(new) => {
                self.net.unreserve(new.name());
                late("netdev", new.name())
            }
            Pending::Respawn(client) => {
                self.passt_restarted(client, Err(LaunchError::Hangs(START_LIMIT)));
                Ok(empty())
            }
            Pending::Restart(client) => {
                self.user_restarted(client, Err("starting the process took too long".into()));
                Ok(empty())
            }
            Pending::Asked(_) | Pending::Forward(..) => Err(QmpError::generic("a process does not answer")),
            // Handled by its caller, in time or not.
            Pending::Leave(..) => Ok(empty()),
            // It is out of force already; its thread goes on closing.
            Pending::Close => {
                tracing::warn!("closing takes long; the reply does not wait for it");
                Ok(empty())
            }
        }
    }
}
