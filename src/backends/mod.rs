//! Backends: resolving their names and connecting to them.

pub mod dial;
pub mod resolver;
