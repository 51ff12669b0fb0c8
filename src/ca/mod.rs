//! The owner's own authority as a library: the folder it lives in, and what it has issued.

pub mod files;
pub mod inventory;
