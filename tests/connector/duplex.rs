//! A backend that sends while it receives.

use std::io::Write;
use std::net::Shutdown;
use std::sync::{Arc, mpsc};
use std::thread;

use crate::common::backend::Backend;

/// Sends `sent` and ends its side then, whatever the other side does, and gives away what it has received.
pub(crate) fn duplex(sent: Arc<Vec<u8>>) -> (Backend, mpsc::Receiver<Vec<u8>>) {
    let (got, received) = mpsc::channel();
    let backend = Backend::serve("127.0.0.1:0", move |stream, state| {
        let (writer, sent) = (stream.try_clone().unwrap(), Arc::clone(&sent));
        let sender = thread::spawn(move || {
            (&writer).write_all(&sent).unwrap();
            let _ = writer.shutdown(Shutdown::Write);
        });
        let mut all = Vec::new();
        state.each_read(stream, |bytes| {
            all.extend_from_slice(bytes);
            true
        });
        sender.join().unwrap();
        let _ = got.send(all);
    });
    (backend, received)
}
