//! Doorward.
pub mod close;
pub mod config;
pub mod identity;
pub mod names;
pub mod rejection;
