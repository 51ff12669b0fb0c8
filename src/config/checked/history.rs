//! `[history]`: what is kept of connections across restarts.

use super::StateFolder;

/// What is kept of connections across restarts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// Where. `None`: the history begins anew with each start.
    pub folder: Option<StateFolder>,
    /// For how many days.
    pub days: u16,
}

impl History {
    /// The default name of the folder.
    pub const FOLDER: &str = "history";

    /// Days unless the file says otherwise.
    pub const DAYS: u16 = 90;
}
