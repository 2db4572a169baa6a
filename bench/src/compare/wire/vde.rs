//! VDE: from a tap to a `vde_switch` and from there to another tap, by netdevd with two `vde` netdevs, and by two `vde_plug2tap`.
//!
//! The switch runs on the load's CPU, before the source. It takes a system call or two a frame, so it may be what limits both; then what counts is
//! the CPU time that plugs take a frame.

use super::cases::{TAPS, tap};
use super::duts::{Carrier, Plugs, Program, Start, on_hub, vde_switch};
use super::frames::ready;
use super::load::{Sink, Wire, raise};
use crate::compare::lab::Lab;
use crate::compare::netns::Namespace;
use crate::compare::vhost::duts::{Dut, Home};
use crate::compare::vhost::quads::Side;
use crate::failure::Result;

/// How many times as good as `vde_plug2tap` is wanted.
pub const WANT: f64 = 1.5;

/// One side: a daemon where there is a `program`, else the plugs.
///
/// # Errors
/// When it does not come up, or nothing gets through.
pub fn side(lab: &Lab, program: Option<Program>, word: &str) -> Result<Side<Wire>> {
    let inside = Namespace::create(word)?;
    let home = Home::new(lab, 0)?;
    let (switch, at) = vde_switch(lab, &home, &inside)?;
    let dut: Box<dyn Dut> = match program {
        Some(program) => {
            let start = Start { program, cpu: lab.dut_cpu, inside: &inside };
            let vde = |id: &str| format!("vde,id={id},sock={}", at.display());
            let mut words = on_hub(0, [("a", tap("a", TAPS[0])), ("va", vde("va"))]);
            words.extend(on_hub(1, [("b", tap("b", TAPS[1])), ("vb", vde("vb"))]));
            Box::new(Carrier::start(lab, &start, &words)?)
        }
        None => Box::new(Plugs::start(lab, &inside, &home, &at, TAPS)?),
    };
    raise(&inside, &TAPS)?;
    let sink = Sink::tap(&inside, TAPS[1])?;
    let words = ["--packet", TAPS[0]].map(str::to_owned);
    let load = Wire::start(lab, inside, &words, sink, Some((switch, home)))?;
    ready(lab, dut, load)
}
