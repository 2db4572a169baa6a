//! `af-xdp` netdevs on veth pairs, in network namespaces.

mod accounts;
mod bad;
mod come_and_go;
mod cut;
mod dpdk;
mod limits;
mod shared;
mod switched;
mod traffic;
mod wire;

/// What every test here needs.
const NEEDS: &[tests::skip::Need] = &[tests::skip::Need::Root];
