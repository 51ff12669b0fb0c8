//! Backends: resolving their names and connecting to them.

pub mod dial;
mod eyeballs;
pub mod opened;
pub mod pool;
pub mod resolver;
