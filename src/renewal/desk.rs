//! Where requests are shown to the process that renews without the owner.
//!
//! The gate has no key that could issue a certificate, and cannot have one: it speaks to strangers. The process beside it has one,
//! speaks to no one but the gate, and believes nothing that the gate says: see [`crate::unattended`].

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use crate::model::renewal::Unattended;

/// How many devices wait at most. The request of one more is left to the owner, until the device asks again.
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
#[derive(Debug, Default)]
pub struct Desk {
    /// Each device has one place at most: one that asks all the time leaves the others theirs.
    waiting: Mutex<VecDeque<Shown>>,
    came: Notify,
}

impl Desk {
    /// Shows the request of a device, and returns what was done with it; `None` if that is not known in time, or if there is no place.
    pub async fn show(&self, device: &str) -> Option<Unattended> {
        let answered = self.place(device)?;
        self.came.notify_one();
        timeout(PATIENCE, answered).await.ok()?.ok()
    }

    fn place(&self, device: &str) -> Option<oneshot::Receiver<Unattended>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|shown| !shown.answer.is_closed());
        if waiting.len() >= WAITING_MAX || waiting.iter().any(|shown| shown.device == device) {
            return None;
        }
        let (answer, answered) = oneshot::channel();
        waiting.push_back(Shown { device: device.to_owned(), answer });
        Some(answered)
    }

    /// The next request, of a device that still waits. Only one task may take them.
    pub async fn next(&self) -> Shown {
        loop {
            // It remembers one call without a listener, so that what comes between these lines is not missed.
            if let Some(shown) = self.take() {
                return shown;
            }
            self.came.notified().await;
        }
    }

    fn take(&self) -> Option<Shown> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|shown| !shown.answer.is_closed());
        waiting.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn device_that_asks_all_the_time_takes_one_place() {
        let desk = Arc::new(Desk::default());
        let ask = |device: &'static str| {
            let desk = Arc::clone(&desk);
            tokio::spawn(async move { desk.show(device).await })
        };
        let flood: Vec<_> = (0..100).map(|_| ask("flood")).collect();
        tokio::task::yield_now().await;
        let other = ask("other");
        tokio::task::yield_now().await;
        for expected in ["flood", "other"] {
            let shown = desk.next().await;
            assert_eq!(shown.device, expected);
            shown.answer.send(Unattended::Left { why: shown.device }).expect("the device waits");
        }
        assert!(other.await.expect("no panic").is_some());
        let mut issued = 0;
        for one in flood {
            issued += usize::from(one.await.expect("no panic").is_some());
        }
        assert_eq!(issued, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn device_that_has_left_keeps_no_place() {
        let desk = Desk::default();
        for number in 0..WAITING_MAX {
            assert!(desk.show(&format!("device-{number}")).await.is_none());
        }
        let (shown, answered) = tokio::join!(desk.next(), async { timeout(PATIENCE / 2, desk.show("late")).await });
        assert_eq!(shown.device, "late");
        assert!(answered.is_err(), "nothing was answered yet");
    }
}
