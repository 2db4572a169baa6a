//! Load tools and fixtures that the benches share.
