//! The harness of the black-box tests.
//!
//! - [`daemon`]: a running `netdevd`, or the reference QEMU, in a directory of its own
//! - [`qmp`]: a QMP client that shows everything: ids, events, raw bytes, passed file descriptors
//! - [`netns`]: network namespaces that vanish with the test, and commands inside them
//! - [`packet`]: sends and receives single frames on an interface
//! - [`program`]: programs that a test writes and a daemon runs
//! - [`lab`]: a daemon with taps in other namespaces
//! - [`guest`]: a guest without a machine on a nic's socket
//! - [`machine`]: a virtual machine with a Linux guest on netdevd's nics
//! - [`nics`]: a daemon with nics, guests on them, frames between guests
//! - [`skip`]: what a test needs and this machine may lack; every skip is printed and counted
//! - [`differential`]: the same lines to both programs, and the table of intended differences
//!
//! No test leaves anything behind: processes carry a parent-death signal, namespaces have no name and live as long as
//! the process that holds them, files lie in temporary directories.

pub mod daemon;
pub mod differential;
pub mod guest;
pub mod lab;
pub mod machine;
pub mod netns;
pub mod nics;
pub mod packet;
pub mod program;
pub mod qmp;
pub mod skip;
pub mod wait;
