//! Backends: resolving their names, waking their machines and connecting to them.

pub mod dial;
mod eyeballs;
pub mod opened;
pub mod pool;
pub mod resolver;
pub mod wake;
