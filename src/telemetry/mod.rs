//! Metrics and the log.

mod file;
mod journal;
pub mod log;
pub mod metrics;
pub mod names;
mod sampling;
