//! `colo-compare` objects (QEMU `net/colo-compare.c`). QEMU does not survive a creation that fails; here each has the error that QEMU is about to tell.

use super::iothread;
use crate::apply::binding::CLOSE_LIMIT;
use crate::apply::jobs::Product;
use crate::chardev::{Stream, User};
use crate::commands::args::Args;
use crate::commands::pending::Pending;
use crate::commands::state::empty;
use crate::commands::{Outcome, State};
use crate::model::qom::property::{string, uint32};
use crate::options::id::well_formed;
use crate::qmp::error::QmpError;
use engine::colo::{Role, Settings};
use serde_json::{Map, Value, json};

/// The property that names the chardev of a role.
pub(in crate::commands) const fn property_of(role: Role) -> &'static str {
    match role {
        Role::Primary => "primary_in",
        Role::Secondary => "secondary_in",
        Role::Out => "outdev",
        Role::Notify => "notify_dev",
    }
}

impl State {
    /// `object-add` of an object that is no filter; nothing for filters.
    pub(super) fn plain_add(&mut self, args: &Map<String, Value>) -> Option<Outcome> {
        let name = args.text("id");
        let (driver, own) = match args.text("qom-type") {
            "iothread" => ("iothread", iothread::properties(args)),
            "colo-compare" => ("colo-compare", self.colo_properties(args)),
            _ => return None,
        };
        if !well_formed(name) {
            return Some(Err(QmpError::generic("Parameter 'id' expects an identifier")).into());
        }
        let added = own.and_then(|own| {
            self.check_object_free(name)?;
            match driver {
                "iothread" => {
                    self.net.add_plain(name, driver, own);
                    Ok(empty())
                }
                _ => self.add_colo(name, own),
            }
        });
        Some(added.into())
    }

    /// The properties of a new comparison, each checked by itself.
    fn colo_properties(&self, args: &Map<String, Value>) -> Result<Map<String, Value>, QmpError> {
        let mut own = Map::new();
        own.insert("iothread".into(), self.object_of_type(args.text("iothread"), "iothread")?.into());
        for role in Role::ALL {
            own.insert(property_of(role).into(), args.text(property_of(role)).into());
        }
        let numbers = [
            ("compare_timeout", Settings::TIMEOUT),
            ("expired_scan_cycle", Settings::CYCLE.into()),
            ("max_queue_size", self.colos.queue().into()),
        ];
        for (name, default) in numbers {
            let number = match args.get(name) {
                Some(value) => positive(name, value)?.into(),
                None => default,
            };
            own.insert(name.into(), json!(number));
        }
        own.insert("vnet_hdr_support".into(), args.flag("vnet_hdr_support").unwrap_or(false).into());
        Ok(own)
    }

    fn add_colo(&mut self, name: &str, own: Map<String, Value>) -> Result<Value, QmpError> {
        let [primary, secondary, out] =
            [Role::Primary, Role::Secondary, Role::Out].map(|role| own.text(property_of(role)));
        if primary == out || secondary == out || primary == secondary {
            return Err(QmpError::generic("'indev' and 'outdev' could not be same for compare module"));
        }
        let chardevs: Vec<(Role, String)> = Role::ALL
            .into_iter()
            .map(|role| (role, own.text(property_of(role)).to_owned()))
            .filter(|(role, name)| *role != Role::Notify || !name.is_empty())
            .collect();
        let (timeout, cycle) = (own.uint("compare_timeout"), own.uint("expired_scan_cycle"));
        let queue = own.uint("max_queue_size").and_then(|n| u32::try_from(n).ok());
        let vnet = own.flag("vnet_hdr_support") == Some(true);
        let number = self.net.add_plain(name, "colo-compare", own);
        let mut claimed = Vec::new();
        let made = self.claim_all(number, &chardevs, &mut claimed).and_then(|()| {
            let settings = self.colos.settings();
            settings.set_timeout(timeout.unwrap_or(Settings::TIMEOUT));
            settings.set_cycle(cycle.and_then(|n| u32::try_from(n).ok()).unwrap_or(Settings::CYCLE));
            settings.set_vnet(vnet);
            self.colos.start(number, settings, vnet, chardevs).map_err(|error| {
                QmpError::generic(format!("colo-compare '{name}': no thread to compare on: {error}"))
            })
        });
        if let Err(error) = made {
            self.net.remove_plain(name);
            claimed.iter().for_each(|(chardev, ..)| self.chardevs.release(chardev));
            return Err(error);
        }
        self.set_queue(queue.unwrap_or(Settings::QUEUE));
        for (_, role, stream) in claimed {
            if let Some(stream) = stream {
                self.compare_connected(number, role, &stream);
            }
        }
        Ok(empty())
    }

    /// Claims chardevs one after the other; those that were are noted, with what is connected already.
    fn claim_all(
        &mut self,
        number: u32,
        chardevs: &[(Role, String)],
        claimed: &mut Vec<(String, Role, Option<Stream>)>,
    ) -> Result<(), QmpError> {
        for (role, id) in chardevs {
            let known = self.chardevs.list().into_iter().find(|chardev| chardev.label == *id);
            match known {
                None => return Err(QmpError::generic(format!("Device '{id}' not found"))),
                Some(chardev) if chardev.driver != "chardev-socket" => {
                    return Err(QmpError::generic(format!("chardev \"{id}\" is not reconnectable")));
                }
                Some(_) => {}
            }
            let stream = self.chardevs.claim(id, User::Compare(number, *role))?;
            claimed.push((id.clone(), *role, stream));
        }
        Ok(())
    }

    /// `object-del` of an object that is no filter; nothing for filters.
    pub(super) fn plain_del(&mut self, name: &str) -> Option<Outcome> {
        let object = self.net.remove_plain(name)?;
        if object.driver == "iothread" {
            // As with QEMU, what uses the thread goes on, and names nothing any more.
            let path = json!(format!("/objects/{name}"));
            self.net.plains_mut().filter_map(|user| user.own.get_mut("iothread")).for_each(|thread| {
                if *thread == path {
                    *thread = "".into();
                }
            });
        }
        let Some((compare, chardevs)) = self.colos.remove(object.number) else {
            return Some(Ok(empty()).into());
        };
        // What is held of the primary goes out first, which may take its time.
        let job = move || {
            compare.finish();
            Product::Closed
        };
        Some(match self.binding.jobs.start(CLOSE_LIMIT, job) {
            Ok(ticket) => {
                self.pending.insert(ticket, Pending::Colo(chardevs));
                Outcome::Later(ticket)
            }
            Err(_) => {
                self.colo_closed(&chardevs);
                Ok(empty()).into()
            }
        })
    }

    /// A comparison has ended: its chardevs are free.
    pub(in crate::commands) fn colo_closed(&mut self, chardevs: &[String]) {
        chardevs.iter().for_each(|chardev| self.chardevs.release(chardev));
    }

    /// `qom-set` on an object that is no filter, of a property that it has.
    pub(in crate::commands) fn set_plain(
        &mut self,
        name: &str,
        property: &str,
        value: &Value,
    ) -> Result<Value, QmpError> {
        let Some(object) = self.net.plain(name) else { return Err(QmpError::device_not_found(name)) };
        let (number, mut own) = (object.number, object.own.clone());
        if object.driver == "iothread" {
            iothread::set(&mut own, property, value)?;
        } else {
            let new = self.colo_value(number, property, value)?;
            own.insert(property.to_owned(), new);
        }
        if let Some(object) = self.net.plains_mut().find(|object| object.number == number) {
            object.own = own;
        }
        Ok(empty())
    }

    /// Checks a new value of a comparison's property, and puts it in force. The names of chardevs are only reported back, as in QEMU.
    fn colo_value(&mut self, number: u32, property: &str, value: &Value) -> Result<Value, QmpError> {
        let settings = self.colos.compare(number).map(engine::colo::Compare::settings);
        match property {
            "compare_timeout" | "expired_scan_cycle" | "max_queue_size" => {
                let new = positive(property, value)?;
                match (property, settings) {
                    ("compare_timeout", Some(settings)) => settings.set_timeout(new.into()),
                    ("expired_scan_cycle", Some(settings)) => settings.set_cycle(new),
                    ("max_queue_size", _) => self.set_queue(new),
                    _ => {}
                }
                Ok(json!(new))
            }
            "vnet_hdr_support" => {
                let bad = format!("Invalid parameter type for '{property}', expected: boolean");
                let carried = value.as_bool().ok_or_else(|| QmpError::generic(bad))?;
                // Of what is sent: readers keep to what they began with, as in QEMU.
                if let Some(settings) = settings {
                    settings.set_vnet(carried);
                }
                Ok(carried.into())
            }
            "iothread" => match string(property, value)? {
                "" => Ok("".into()),
                thread => Ok(self.object_of_type(thread, "iothread")?.into()),
            },
            _ => Ok(string(property, value)?.into()),
        }
    }

    /// All comparisons have one such number, and report it.
    fn set_queue(&mut self, frames: u32) {
        self.colos.set_queue(frames);
        for queue in self.net.plains_mut().filter_map(|object| object.own.get_mut("max_queue_size")) {
            *queue = json!(frames);
        }
    }

    /// Somebody is at the other end of a comparison's chardev.
    pub fn compare_connected(&mut self, number: u32, role: Role, stream: &Stream) {
        if let Err(error) = self.colos.connected(number, role, stream) {
            tracing::warn!("no descriptor for the {} of a comparison: {error}", property_of(role));
        }
    }

    /// Connections of comparisons have ended: their chardevs listen or connect again.
    pub fn colo_ready(&mut self) {
        for chardev in self.colos.ended() {
            self.chardevs.disconnected(&chardev);
        }
    }
}

/// A number that is not 0, or QEMU's words for something else.
fn positive(name: &str, value: &Value) -> Result<u32, QmpError> {
    match uint32(name, value)? {
        0 => Err(QmpError::generic(format!("Property 'colo-compare.{name}' requires a positive value"))),
        number => Ok(number),
    }
}
