//! The connections that are authorized and open: which there are, and which of them an order is for.

pub mod registry;
pub mod selector;
