//! A backend whose answers to checks the test decides.

use std::collections::VecDeque;
use std::io::Write;
use std::net::{Shutdown, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use time::OffsetDateTime;

use crate::ANY;
use crate::common::backend::Backend;
use crate::common::process::wait_until;

/// What checks of it send. What sends anything else is a client, and gets it back.
const QUESTION: &[u8] = b"check\r\n";

/// A service that passes its checks or does not, and sends clients back what they send.
pub(crate) struct Service {
    backend: Backend,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// How the next checks end.
    script: Mutex<VecDeque<bool>>,
    /// How those behind the script end.
    passes: AtomicBool,
    /// When each check was answered.
    answered: Mutex<Vec<OffsetDateTime>>,
    clients: AtomicU64,
}

impl Service {
    /// One that passes its checks, or not.
    pub(crate) fn new(passes: bool) -> Self {
        Self::scripted("", passes)
    }

    /// One whose first checks pass (`+`) or fail (`-`), and whose others pass, or not.
    pub(crate) fn scripted(script: &str, passes: bool) -> Self {
        Self::at(("127.0.0.1", 0), script, passes)
    }

    /// The same at an address of the caller's choice.
    pub(crate) fn at(address: impl ToSocketAddrs, script: &str, passes: bool) -> Self {
        let state = Arc::new(State {
            script: Mutex::new(script.chars().map(|sign| sign == '+').collect()),
            passes: AtomicBool::new(passes),
            ..State::default()
        });
        let shared = Arc::clone(&state);
        let backend = Backend::serve(address, move |mut stream, handling| {
            let mut first = true;
            handling.each_read(stream, |bytes| {
                if std::mem::take(&mut first) {
                    if bytes == QUESTION {
                        shared.answer(stream);
                        return false;
                    }
                    shared.clients.fetch_add(1, Ordering::SeqCst);
                }
                stream.write_all(bytes).is_ok()
            });
            let _ = stream.shutdown(Shutdown::Write);
        });
        Self { backend, state }
    }

    /// From now on its checks pass, or not.
    pub(crate) fn pass(&self, passes: bool) {
        self.state.passes.store(passes, Ordering::SeqCst);
    }

    /// Its address, as it is configured.
    pub(crate) fn address(&self) -> String {
        self.backend.address().to_string()
    }

    /// How many clients were connected to it.
    pub(crate) fn clients(&self) -> u64 {
        self.state.clients.load(Ordering::SeqCst)
    }

    /// How many checks it has answered.
    pub(crate) fn checks(&self) -> usize {
        lock(&self.state.answered).len()
    }

    /// How many checks it had answered at this moment of the log.
    pub(crate) fn checks_at(&self, moment: &str) -> usize {
        let moment = OffsetDateTime::parse(moment, &time::format_description::well_known::Rfc3339).unwrap();
        lock(&self.state.answered).iter().filter(|answered| **answered < moment).count()
    }

    /// Waits until it has answered so many checks more.
    #[track_caller]
    pub(crate) fn wait_checks(&self, more: usize) {
        let count = self.checks() + more;
        wait_until("it was checked", || (self.checks() >= count).then_some(()));
    }
}

impl State {
    fn answer(&self, mut stream: impl Write) {
        let passes = lock(&self.script).pop_front().unwrap_or_else(|| self.passes.load(Ordering::SeqCst));
        // Before it is sent: what the gate makes of it comes later.
        lock(&self.answered).push(OffsetDateTime::now_utc());
        let answer: &[u8] = if passes { b"well\r\n" } else { b"HTTP/1.1 400 Bad Request\r\n\r\n" };
        let _ = stream.write_all(answer);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The keys of a route whose backends are services, checked ten times a second. A machine that is busy may be late: a check has
/// time enough to be answered.
pub(crate) fn keys(rise: u32, fall: u32) -> String {
    format!(
        "{ANY}\nhealth = {{ every = \"100ms\", timeout = \"30s\", rise = {rise}, fall = {fall}, send = \"check\\r\\n\", \
         expect = \"well\" }}"
    )
}
