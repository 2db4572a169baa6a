//! netdevd
fn main() {}
