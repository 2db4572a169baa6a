//! `filter-mirror` and `filter-redirector` (QEMU `net/filter-mirror.c`): frames to a chardev, and from one.
//!
//! A mirror copies frames to `outdev` and lets them pass. A redirector takes them away where it has an `outdev`; frames from its `indev` go on
//! from its place: with `queue=rx` to the netdev, with `tx` from it, with `all` both. Off, everything passes and nothing is read; what comes waits
//! in the chardev.
//!
//! A frame goes to the chardev as it passes. Without `vnet_hdr_support` its offload state is lost: a segment that the kernel would
//! have cut arrives whole, and a checksum that is left to the hardware is not in it.

use super::channel::{Inlet, InletThread, Link, Outlet, OutletThread};
use super::{Direction, Filter, Handle, Settings};
use crate::burst::{Burst, Mask};
use crate::mem::arena::Arena;
use crate::mem::records::Reader;
use crate::port::Turn;
use crate::uring::Waker;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MirrorOptions {
    /// Frames are taken away, not copied.
    pub steals: bool,
    /// There is an `indev`.
    pub indev: bool,
    /// There is an `outdev`.
    pub outdev: Option<Outdev>,
    /// `vnet_hdr_support`.
    pub vnet: bool,
    /// Switched on.
    pub on: bool,
    /// Frames sent to the netdev.
    pub rx: bool,
    /// Frames that the netdev sends.
    pub tx: bool,
}

/// Where frames go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outdev {
    /// To who is at the other end.
    Stream,
    /// Nowhere: chardev `null`.
    Null,
}

/// A filter of either kind, held by control.
#[derive(Debug)]
pub struct Mirror {
    settings: Arc<Settings>,
    indev: Option<InletThread>,
    outdev: Option<OutletThread>,
}

impl Mirror {
    /// Makes one, with an instance for each of `workers` workers. Worker `home`, which `waker` wakes, puts in what comes.
    ///
    /// # Errors
    /// No memory, no descriptor, no thread.
    pub fn open(
        options: &MirrorOptions,
        arena: &Arc<Arena>,
        workers: usize,
        home: usize,
        waker: Option<Arc<Waker>>,
    ) -> io::Result<(Self, Vec<Box<dyn Filter>>)> {
        let settings = Arc::new(Settings::new(options.on, options.rx, options.tx));
        let mut this = Self { settings: settings.clone(), indev: None, outdev: None };
        let mut inlet = None;
        if options.indev {
            let (thread, end) = InletThread::start(arena, &settings, options.vnet, waker)?;
            this.indev = Some(thread);
            inlet = Some(end);
        }
        let mut outlets = Vec::new();
        if let Some(outdev) = options.outdev {
            let (thread, ends) = OutletThread::start(arena, workers, outdev == Outdev::Null)?;
            thread.set_vnet(options.vnet);
            this.outdev = Some(thread);
            outlets = ends;
        }
        let mut outlets = outlets.into_iter();
        let instance = |worker| {
            let inlet = if worker == home { inlet.take() } else { None };
            let (settings, steals) = (settings.clone(), options.steals);
            Box::new(Instance { settings, steals, inlet, outlet: outlets.next() }) as Box<dyn Filter>
        };
        let instances = (0..workers).map(instance).collect();
        Ok((this, instances))
    }

    /// One instance whose frames the caller reads, for measurements: there is no chardev and no thread.
    ///
    /// # Errors
    /// No memory, no descriptor.
    pub fn unread(arena: &Arc<Arena>, steals: bool) -> io::Result<(Self, Box<dyn Filter>, Reader)> {
        let settings = Arc::new(Settings::new(true, true, true));
        let (thread, outlet, reader) = OutletThread::unread(arena)?;
        let this = Self { settings: settings.clone(), indev: None, outdev: Some(thread) };
        Ok((this, Box::new(Instance { settings, steals, inlet: None, outlet: Some(outlet) }), reader))
    }

    fn links(&self) -> impl Iterator<Item = &Link> {
        let (indev, outdev) = (&self.indev, &self.outdev);
        indev.iter().map(InletThread::link).chain(outdev.iter().map(OutletThread::link))
    }
}

impl Handle for Mirror {
    fn set(&self, on: bool, rx: bool, tx: bool) {
        let was_on = self.settings.switch(on, rx, tx);
        if let Some(indev) = &self.indev {
            if on && !was_on {
                indev.attach();
            }
            indev.changed();
        }
    }

    fn tune(&self, property: &str, value: u64) {
        match (&self.outdev, property) {
            // What comes is read as it was at first, as in QEMU.
            (Some(outdev), "vnet_hdr_support") => outdev.set_vnet(value != 0),
            (Some(outdev), "vnet_hdr_len") => outdev.set_always(value != 0),
            _ => {}
        }
    }

    fn held(&self) -> u64 {
        self.indev.as_ref().map_or(0, InletThread::held)
    }

    fn link(&self, property: &str) -> Option<&Link> {
        match property {
            "indev" => self.indev.as_ref().map(InletThread::link),
            "outdev" => self.outdev.as_ref().map(OutletThread::link),
            _ => None,
        }
    }

    fn counters(&self) -> Vec<(&'static str, u64)> {
        let out = self.outdev.iter().flat_map(OutletThread::counters);
        self.indev.iter().flat_map(InletThread::counters).chain(out).collect()
    }

    fn finish(&self, bound: Duration) {
        self.links().for_each(Link::close);
        let end = Instant::now() + bound;
        self.links().for_each(|link| {
            let _ = link.wait(end.saturating_duration_since(Instant::now()));
        });
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.links().for_each(Link::close);
    }
}

/// One worker's instance.
pub(super) struct Instance {
    settings: Arc<Settings>,
    steals: bool,
    inlet: Option<Inlet>,
    outlet: Option<Outlet>,
}

impl Instance {
    /// One that lets everything pass and puts in what comes, if anything can come here.
    pub(super) const fn injecting(settings: Arc<Settings>, inlet: Option<Inlet>) -> Self {
        Self { settings, steals: false, inlet, outlet: None }
    }
}

impl Filter for Instance {
    fn frames(&mut self, _turn: &mut Turn<'_>, direction: Direction, burst: &Burst, mask: Mask) -> Mask {
        let Some(outlet) = self.outlet.as_mut().filter(|_| self.settings.sees(direction)) else {
            return mask;
        };
        outlet.take(burst, mask);
        if self.steals { Mask::NONE } else { mask }
    }

    fn tick(&mut self, _turn: &mut Turn<'_>) {}

    fn injects(&self) -> bool {
        self.inlet.is_some()
    }

    fn due(&mut self, _now: u64, direction: Direction) -> usize {
        self.inlet.as_mut().map_or(0, |inlet| inlet.due(direction))
    }

    fn lend(&mut self, _turn: &mut Turn<'_>, direction: Direction, want: usize, burst: &mut Burst) {
        if let Some(inlet) = &mut self.inlet {
            inlet.lend(direction, want, burst);
        }
    }

    fn took(&mut self, direction: Direction, n: usize) {
        if let Some(inlet) = &mut self.inlet {
            inlet.took(direction, n);
        }
    }

    fn gone(&mut self, _turn: &mut Turn<'_>, direction: Direction, n: usize) {
        if let Some(inlet) = &mut self.inlet {
            inlet.gone(direction, n);
        }
    }
}

#[cfg(test)]
mod tests;
