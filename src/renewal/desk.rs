//! Where requests are shown to the process that renews without the owner.
//!
//! The gate has no key that could issue a certificate, and cannot have one: it speaks to strangers. The process beside it has one,
//! speaks to no one but the gate, and believes nothing that the gate says: see [`crate::unattended`].

use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::timeout;

use crate::model::renewal::Unattended;

/// How many requests wait at most. One more is left to the owner, until the device asks again.
const WAITING_MAX: usize = 16;

/// How long a device waits for its certificate. After that it is told to ask again, and then finds it.
const PATIENCE: Duration = Duration::from_secs(4);

/// A device whose request is stored.
#[derive(Debug)]
pub struct Shown {
    /// The device.
    pub device: String,
    /// Where the process says what it has done.
    pub answer: oneshot::Sender<Unattended>,
}

/// The desk of a gate.
#[derive(Debug)]
pub struct Desk {
    shown: mpsc::Sender<Shown>,
    /// For the one who brings them to the process.
    taken: Mutex<mpsc::Receiver<Shown>>,
}

impl Default for Desk {
    fn default() -> Self {
        let (shown, taken) = mpsc::channel(WAITING_MAX);
        Self { shown, taken: Mutex::new(taken) }
    }
}

impl Desk {
    /// Shows the request of a device, and returns what was done with it; `None` if that is not known in time.
    pub async fn show(&self, device: &str) -> Option<Unattended> {
        let (answer, answered) = oneshot::channel();
        self.shown.try_send(Shown { device: device.to_owned(), answer }).ok()?;
        timeout(PATIENCE, answered).await.ok()?.ok()
    }

    /// The next request, of a device that still waits.
    pub async fn next(&self) -> Shown {
        loop {
            match self.taken.lock().await.recv().await {
                Some(shown) if shown.answer.is_closed() => {}
                Some(shown) => return shown,
                // The sender is beside it.
                None => std::future::pending().await,
            }
        }
    }
}
