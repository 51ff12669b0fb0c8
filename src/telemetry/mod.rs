//! What the gate says about its connections: metrics for machines that watch, lines for people and machines that read.

pub mod expiries;
mod file;
mod journal;
pub mod log;
pub mod metrics;
pub mod names;
mod sampling;
pub mod tally;
