//! Backends: resolving their names, checking their health, and connecting to them.

pub mod dial;
mod eyeballs;
pub mod health;
pub mod pool;
pub mod probe;
pub mod resolver;
