//! System calls that no safe crate offers, and the ones whose subtleties want writing down.
//!
//! The only `unsafe` of the crate is in here, one call a block.

pub mod socket;
pub mod splice;
pub mod stream;
