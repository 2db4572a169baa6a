//! A burst crosses a switch: the two passes of [`super::sort`], then the third, which delivers to each port at once.
//!
//! ```text
//!  frames -> classify -> look up -> masks by port -> as they came, with their heads -> port that can take them so
//!                                               -> plain form                     -> node of each other port's leg
//!                                               -> tagged form                    -> node of each other port's leg
//! ```
//!
//! A port that is full is offered its rest once more when all others were served; then that is dropped, so nobody waits for it.

use super::forms::{Form, make};
use super::forward::{Outlet, Stage};
use super::sort::{Looks, Ports, Sorted};
use super::state::Count;
use super::walk::{Marks, Visit};
use crate::burst::{Burst, Mask};
use crate::port::Turn;
use crate::port::counters::DropReason;
use crate::topology::plan::{PortPlan, SwitchPlan};

/// Ports that are offered their rest again at most, of one form; those beyond are not.
const LATE: usize = 64;

/// What a switch needs while its frames are under way to other switches.
#[derive(Debug)]
pub(super) struct Level {
    looks: Box<Looks>,
    ports: Ports,
    plain: Burst,
    tagged: Burst,
    /// Ports that were full, as their legs, with what is left.
    late: Vec<(u32, Mask)>,
}

impl Level {
    /// For switches of at most so many ports; allocated here.
    pub(super) fn new(ports: usize) -> Self {
        Self {
            looks: Box::new(Looks::new()),
            ports: Ports::new(ports),
            plain: Burst::new(),
            tagged: Burst::new(),
            late: Vec::with_capacity(LATE),
        }
    }
}

/// Takes the frames of `visit` through a switch.
#[expect(clippy::too_many_arguments, reason = "what a walk has at hand, and nothing of it belongs together")]
pub(super) fn cross(
    stage: &Stage<'_>,
    marks: &mut Marks,
    turn: &mut Turn<'_>,
    burst: &Burst,
    (switch, port): (u32, u32),
    visit: Visit,
    level: &mut Level,
    deeper: &mut [Level],
    out: &mut impl Outlet,
) {
    let drop = |reason, frames| stage.discard(visit.at, reason, Mask(frames));
    let plan = stage.plan.switches.get(switch as usize);
    let here = plan.and_then(|plan| plan.port(port));
    let (Some(plan), Some(here), Some(state)) = (plan, here, stage.routes.switch(switch)) else {
        return drop(DropReason::PortGone, visit.mask.0);
    };
    if here.rules.mirror.is_some() {
        return drop(DropReason::MirrorPort, visit.mask.0);
    }
    let Level { looks, ports, plain, tagged, late } = level;
    let mut sorted = looks.classify(burst, visit.mask, here, state);
    let (from, looks): (_, &Looks) = ((port, here), looks);
    looks.look_up(&mut sorted, from, plan, state, turn.now, stage.worker, ports);
    if sorted.flood != 0 {
        let nobody = looks.flood(sorted.flood, from, plan, ports);
        state.count(stage.worker, Count::Flooded, u64::from(sorted.flood.count_ones()));
        drop(DropReason::NoPeer, nobody);
    }
    drop(DropReason::SamePort, sorted.same);
    drop(DropReason::Private, sorted.private);
    drop(DropReason::Vlan, sorted.vlan);
    drop(DropReason::Malformed, sorted.malformed);
    drop(DropReason::BadOffload, sorted.bad);

    let need = split(looks, &sorted, here, plan, ports);
    for (form, to) in [(Form::Plain, plain), (Form::Tagged, tagged)] {
        let of_form = |[plain, tagged]: [u64; 2]| if form == Form::Plain { plain } else { tagged };
        let mut good = of_form(need);
        if good == 0 {
            continue;
        }
        let (noted, changes) = (marks.noted(), form.changes(&sorted));
        let (mut index, mut made) = (0, false);
        while let Some((number, masks)) = ports.nth(index) {
            index += 1;
            let (frames, leg) = (of_form(masks) & good, plan.port(number));
            let (true, Some(leg)) = (frames != 0, leg) else { continue };
            // As they came, with what was decided on in front: to many ports they go so, and are not laid out anew.
            let direct = match frames & changes {
                0 => stage.direct(turn, leg.node, burst, Mask(frames), &looks.heads, out),
                _ => None,
            };
            if direct == Some(Mask::NONE) {
                continue;
            }
            if !made {
                let rest = (index - 1..ports.len()).filter_map(|index| ports.nth(index));
                let rest = good & rest.fold(0, |all, (_, masks)| all | of_form(masks));
                for (reason, frames) in make(to, burst, rest, form, (looks, &sorted), out) {
                    drop(reason, frames);
                    good &= !frames;
                }
                made = true;
            }
            let left = direct.unwrap_or(Mask(frames));
            let left = Mask(left.0 & good);
            let left = match direct {
                Some(_) => left,
                None => stage.node(marks, turn, (leg.node, visit.crossed, true), to, left, out),
            };
            match left.is_empty() {
                true => {}
                false if late.len() < late.capacity() => late.push((leg.node, left)),
                false => stage.last(turn, leg.node, to, left, out),
            }
        }
        while let Some((node, left)) = late.pop() {
            stage.last(turn, node, to, left, out);
        }
        if marks.noted() > noted {
            stage.visits(marks, turn, to, noted, deeper, out);
        }
    }
    ports.clear();
}

/// Splits what leaves by each port into frames without and with a tag, and adds the copies for mirrors. Returns all frames that are needed
/// in either form.
fn split(looks: &Looks, sorted: &Sorted, here: &PortPlan, plan: &SwitchPlan, ports: &mut Ports) -> [u64; 2] {
    let mut need = [0; 2];
    for index in 0..ports.len() {
        let Some((number, [frames, _])) = ports.nth(index) else { break };
        let Some(port) = plan.port(number) else { continue };
        if !port.trunk && port.copies_tx.is_empty() {
            need[0] |= frames;
            continue;
        }
        let tagged = if port.trunk { looks.of_vlan(frames, |vlan| vlan != port.rules.untagged) } else { 0 };
        let both = [frames & !tagged, tagged];
        ports.set(number, both);
        need = [need[0] | both[0], need[1] | both[1]];
        for mirror in &port.copies_tx {
            ports.add_both(*mirror, both);
        }
    }
    if !here.copies_rx.is_empty() {
        let seen = sorted.good | sorted.vlan;
        let both = [seen & !sorted.tagged, seen & sorted.tagged];
        need = [need[0] | both[0], need[1] | both[1]];
        for mirror in &here.copies_rx {
            ports.add_both(*mirror, both);
        }
    }
    need
}
