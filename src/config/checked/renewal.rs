//! `[renewal]`: devices ask for their next certificate through the gate.

use super::{Route, StateFolder};
use crate::model::names::ServerName;

/// The renewal of device certificates through the gate.
#[derive(Clone, Debug)]
pub struct Renewal {
    /// `server_name`: what devices ask for.
    pub server_name: ServerName,
    /// How the gate decides about clients that ask for this name. It has no backends: the gate answers.
    pub route: Route,
    /// `folder`: where requests and answers are.
    pub folder: StateFolder,
}

impl Renewal {
    /// What the log and the metrics call it, in the place of a route.
    pub const NAME: &str = "renewal";

    /// The default name of the folder.
    pub const FOLDER: &str = "renewal";
}
