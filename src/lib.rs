//! Doorward.
pub mod cli;
pub mod close;
pub mod config;
pub mod identity;
pub mod names;
pub mod pki;
pub mod rejection;
