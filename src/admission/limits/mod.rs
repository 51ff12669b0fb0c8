//! The limits on connections, one file each. What is taken is a guard that gives itself back when dropped.

pub(super) mod connections;
pub(super) mod evicting;
pub(super) mod per_source;
pub(super) mod probation;
