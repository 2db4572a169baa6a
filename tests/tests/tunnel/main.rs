//! Tunnels: `l2tpv3` beside QEMU's own, `vxlan` beside the kernel's.

mod bad;
mod decoded;
mod ends;
mod l2tpv3;
mod spread;
mod vxlan;

use tests::skip::Need;

/// What every test here needs.
const NEEDS: &[Need] = &[Need::Root, Need::Tap];
