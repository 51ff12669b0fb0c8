//! What is known of backends across connections and reloads.

pub mod dial;
pub mod resolver;
