//! `[[expect]]`: what the policy is asserted to be, and the entries of `allow` that it is made of.

use super::{Allow, Selector};
use crate::model::names::Name;

/// An asserted answer of a route. A configuration that answers otherwise is not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expectation {
    /// The line in the configuration, counted from 1.
    pub line: Option<usize>,
    /// The key, as in `expect[1]`.
    pub key: String,
    /// The clients it is about.
    pub clients: ExpectedClients,
    /// The route.
    pub route: Name,
    /// Whether the route admits them.
    pub allowed: bool,
}

/// The clients that an expectation is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExpectedClients {
    /// `device = "any"`: those with a verified certificate that no entry of `allow` names.
    Any,
    /// `device = "unverified"`: those with an unverified certificate, and those without one.
    Unverified,
    /// A device.
    Device(Selector),
    /// The members of a group.
    Group {
        /// Its name.
        name: String,
        /// Its members.
        members: Vec<Selector>,
    },
}

/// An entry of `allow`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowEntry {
    /// As it is written.
    pub text: String,
    /// Its line in the configuration, counted from 1.
    pub line: Option<usize>,
    /// Whether it is the name of a group.
    pub is_group: bool,
    /// What it admits.
    pub admits: Allow,
}
