//! Requests to replace the gate by a new process, one at a time.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, oneshot};

use super::Upgraded;

/// A request, which is answered with what has replaced the gate or why it was not replaced.
pub(crate) type UpgradeRequest = oneshot::Sender<Result<Upgraded, String>>;

/// Asks for upgrades. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Upgrades {
    requests: mpsc::Sender<UpgradeRequest>,
    error: Arc<Mutex<Option<String>>>,
}

impl Upgrades {
    /// With where its requests arrive.
    pub(crate) fn new() -> (Self, mpsc::Receiver<UpgradeRequest>) {
        let (requests, receiver) = mpsc::channel(1);
        (Self { requests, error: Arc::default() }, receiver)
    }

    /// Has the gate replaced.
    ///
    /// # Errors
    /// Why it was not, as a message.
    pub(crate) async fn request(&self) -> Result<Upgraded, String> {
        const ENDS: &str = "the gate is stopping, or was replaced just now";
        let (answer, answered) = oneshot::channel();
        self.requests.try_send(answer).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => "another upgrade is in progress".to_owned(),
            mpsc::error::TrySendError::Closed(_) => ENDS.to_owned(),
        })?;
        answered.await.unwrap_or_else(|_| Err(ENDS.to_owned()))
    }

    /// Records why the latest one failed, or that it has not.
    pub(crate) fn set_error(&self, error: Option<String>) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    /// Why the latest one failed.
    pub(crate) fn error(&self) -> Option<String> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
