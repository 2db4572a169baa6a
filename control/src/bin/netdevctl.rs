//! netdevctl
fn main() {}
