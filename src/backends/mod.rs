//! Backends: resolving their names, checking their health, waking their machines and connecting to them.

pub mod dial;
mod eyeballs;
pub mod health;
pub mod opened;
pub mod pool;
pub mod probe;
pub mod resolver;
pub mod wake;
