//! What there is to measure: a job gives the rows of one case of one part.

use super::cases::{Case, Transport, Way};
use super::duts::{Program, without_qemu};
use super::hosts::{Setup, Tunnel};
use super::turns::Turns;
use super::{Options, frames, tcp, vde};
use crate::compare::lab::Lab;
use crate::compare::vhost::quads::Plan;
use crate::compare::vhost::report::Row;
use crate::failure::{Failure, Result};

/// How many times the TCP throughput of QEMU is wanted, and of the kernel's VXLAN device with tunnel segmentation offload and without.
const TCP: f64 = 3.0;
const VXLAN: [(&str, bool, f64); 2] = [("gso", true, 0.6), ("no-gso", false, 1.0)];

/// A row that is still to be measured.
pub(super) enum Job {
    Frames(Case),
    Tcp(Transport),
    Vde(Way),
    Vxlan(&'static str, bool, f64),
}

impl Job {
    /// Those of a part.
    pub(super) fn of(part: &str) -> Vec<Self> {
        match part {
            "frames" => Case::all().into_iter().map(Self::Frames).collect(),
            "tcp" => Transport::OF_QEMU.into_iter().map(Self::Tcp).collect(),
            "vde" => vde::WAYS.into_iter().map(Self::Vde).collect(),
            _ => VXLAN
                .into_iter()
                .map(|(word, segmentation, want)| Self::Vxlan(word, segmentation, want))
                .collect(),
        }
    }

    /// What `--only` names.
    pub(super) fn id(&self) -> String {
        match self {
            Self::Frames(case) => case.id(),
            Self::Tcp(transport) => transport.word().into(),
            Self::Vde(way) => vde::names(*way)[0].clone(),
            Self::Vxlan(word, ..) => (*word).into(),
        }
    }

    /// Whether `--only` with this word names it.
    pub(super) fn is(&self, word: &str) -> bool {
        match self {
            Self::Frames(case) => case.is(word),
            _ => self.id() == word,
        }
    }

    /// Measures it.
    ///
    /// # Errors
    /// When a peer is missing or a side fails.
    pub(super) fn rows(
        &self,
        lab: &Lab,
        options: &Options,
        part: &'static str,
        plan: &Plan,
        turns: &Turns,
    ) -> Result<Vec<Row>> {
        let qemu =
            matches!(self, Self::Frames(_) | Self::Tcp(_)) || options.same && matches!(self, Self::Vde(_));
        if let Some(why) = without_qemu(lab).filter(|_| qemu) {
            return Err(Failure::new(why));
        }
        let ours = |program| if options.same { Program::Qemu } else { program };
        let hosts = |tunnel, segmentation| Setup { tunnel, segmentation, spread: options.spread };
        match self {
            Self::Frames(case) => {
                // Whoever measures meanwhile would be disturbed by what polls here.
                let lock = lab.hold()?;
                let first = frames::side(lab, ours(Program::Polling), case, "ours")?;
                let mut sides = [first, frames::side(lab, Program::Qemu, case, "theirs")?];
                drop(lock);
                frames::rows(lab, plan, part, [case.id(), case.name()], case.wanted(), &mut sides)
            }
            Self::Vde(way) => {
                let lock = lab.hold()?;
                let first = vde::side(lab, Some(ours(Program::Polling)), *way, "ours")?;
                let mut sides = [first, vde::side(lab, None, *way, "theirs")?];
                drop(lock);
                // The source leaves its CPU to the switch.
                let plan = &Plan { watched: 1, ..*plan };
                frames::rows(lab, plan, part, vde::names(*way), vde::WANT, &mut sides)
            }
            Self::Tcp(transport) => {
                let by = |program| hosts(Tunnel::Daemons(program, *transport), true);
                let names = [self.id(), transport.name().into()];
                tcp::rows(lab, turns, part, names, TCP, [by(ours(Program::Netdevd)), by(Program::Qemu)])
            }
            Self::Vxlan(word, segmentation, want) => {
                let netdevd = Tunnel::Daemons(Program::Netdevd, Transport::Vxlan);
                let first = if options.same { Tunnel::Kernel } else { netdevd };
                let names = [self.id(), format!("tunnel {word}")];
                tcp::rows(
                    lab,
                    turns,
                    part,
                    names,
                    *want,
                    [first, Tunnel::Kernel].map(|by| hosts(by, *segmentation)),
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_job_of_a_part_has_a_name_of_its_own() {
        for (part, count) in [("frames", 14), ("tcp", 4), ("vde", 2), ("vxlan", 2)] {
            let mut ids: Vec<String> = Job::of(part).iter().map(Job::id).collect();
            ids.sort();
            ids.dedup();
            assert_eq!(ids.len(), count, "{part}");
        }
        let named = |word: &str| Job::of("vde").iter().filter(|job| job.is(word)).count();
        assert_eq!([named("tap-vde"), named("vde-tap"), named("vde")], [1, 1, 0]);
    }
}
