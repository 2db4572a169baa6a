//! The commands' view of the chardevs.

use crate::chardev::{Opened, Registry, Stream, User};
use crate::commands::{Added, ChardevInfo, Chardevs, FdSource};
use crate::options::chardev::Chardev;
use crate::qmp::QmpError;
use serde_json::{Map, Value};
use std::any::Any;
use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;

/// The registry, shared with the event loop; both run on the control thread.
pub(super) struct Shared(pub(super) Rc<RefCell<Registry>>);

/// Options that exclude each other, in QEMU's words.
fn check(id: &str, backend: &Value) -> Result<(), QmpError> {
    let args = Map::from_iter([("id".to_owned(), id.into()), ("backend".to_owned(), backend.clone())]);
    let failed = |e: QmpError| QmpError::generic(format!("Failed to add chardev '{id}': {}", e.desc));
    Chardev::decode(args).and_then(|chardev| chardev.validate()).map_err(failed)
}

impl Chardevs for Shared {
    fn claim(&mut self, id: &str, user: User) -> Result<Option<Stream>, QmpError> {
        let claimed = self.0.borrow_mut().claim(id, user);
        let (_, connected) = claimed.map_err(|e| QmpError::generic(e.to_string()))?;
        Ok(connected.map(|connected| connected.stream))
    }

    fn disconnected(&mut self, id: &str) {
        let mut registry = self.0.borrow_mut();
        if let Some(chardev) = registry.id(id) {
            registry.disconnected(chardev);
        }
    }

    fn release(&mut self, id: &str) {
        let mut registry = self.0.borrow_mut();
        if let Some(chardev) = registry.id(id) {
            registry.release(chardev);
        }
    }

    fn give_back(&mut self, id: &str, stream: Stream) {
        let mut registry = self.0.borrow_mut();
        if let Some(chardev) = registry.id(id) {
            registry.give_back(chardev, stream);
        }
    }

    fn add(&mut self, id: &str, backend: &Value, fds: &mut FdSource<'_>) -> Result<Added, QmpError> {
        let mut find = |name: &str| -> Result<OwnedFd, String> { fds.take(id, name).map_err(|e| e.desc) };
        let mut registry = self.0.borrow_mut();
        if !registry.knows(id) {
            check(id, backend)?;
        }
        let opening = registry.begin(id, backend, &mut find)?;
        if opening.is_quick() {
            return Ok(Added::Done(registry.finish(opening.run())?));
        }
        Ok(Added::Opening(Box::new(move || Box::new(opening.run()))))
    }

    fn finish(&mut self, id: &str, opened: Box<dyn Any + Send>) -> Result<Value, QmpError> {
        match opened.downcast::<Opened>() {
            Ok(opened) => Ok(self.0.borrow_mut().finish(*opened)?),
            Err(_) => {
                self.abandon(id);
                Err(QmpError::generic(format!("Failed to add chardev '{id}': it was not opened")))
            }
        }
    }

    fn abandon(&mut self, id: &str) {
        self.0.borrow_mut().abandon(id);
    }

    fn remove(&mut self, id: &str) -> Result<(), QmpError> {
        Ok(self.0.borrow_mut().remove(id)?)
    }

    fn list(&self) -> Vec<ChardevInfo> {
        self.0.borrow().list()
    }
}
