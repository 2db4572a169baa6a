//! netdevctl.
