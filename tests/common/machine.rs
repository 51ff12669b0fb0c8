//! Another machine: a network namespace, which ends with the thread that made it.

use std::sync::mpsc;
use std::thread;

use rustix::thread::{UnshareFlags, gettid};

use super::process::{run, tool};

type Order = Box<dyn FnOnce() + Send>;

/// The machine, without a connection to any other.
pub(crate) struct Machine {
    orders: Option<mpsc::Sender<Order>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// From now on, this thread and all that it starts are on a machine of their own.
#[expect(deprecated, reason = "this thread shares no file descriptors that it would lose")]
pub(crate) fn leave_the_network() {
    rustix::thread::unshare(UnshareFlags::NEWNET).unwrap();
    ip("link set lo up");
}

/// `ip`, on the machine of this thread.
pub(crate) fn ip(arguments: &str) {
    run(tool("ip", "iproute2").args(arguments.split(' '))).success();
}

impl Machine {
    /// A new one. A cable leads from its interface `there` to `here` of this machine; neither has an address, and `there` is off.
    pub(crate) fn beside(here: &str, there: &str) -> Self {
        let (orders, taken) = mpsc::channel::<Order>();
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            leave_the_network();
            tell.send(gettid()).unwrap();
            taken.into_iter().for_each(|order| order());
        });
        let other = told.recv().unwrap().as_raw_nonzero();
        ip(&format!("link add {here} type veth peer name {there} netns {other}"));
        ip(&format!("link set {here} up"));
        Self { orders: Some(orders), thread: Some(thread) }
    }

    /// What `work` gives there.
    pub(crate) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        self.orders.as_ref().unwrap().send(Box::new(move || tell.send(work()).unwrap())).unwrap();
        told.recv().unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
