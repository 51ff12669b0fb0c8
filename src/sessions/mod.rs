//! The open sessions, and which of them end: by a selector, or because a review no longer admits them.

pub mod registry;
pub(crate) mod review;
pub mod selector;
