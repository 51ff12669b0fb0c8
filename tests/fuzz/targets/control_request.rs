//! A request on the control socket, and the data after it.
#![no_main]

use std::sync::LazyLock;

use doorward::control::{LIST_MAX, Request, fuzz_read};
use doorward::explain::recent::Wanted;
use doorward::sessions::selector::SessionSelector;
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Builder::new_current_thread().enable_time().build().unwrap());

fuzz_target!(|bytes: &[u8]| {
    let Some((request, authority, list)) = RUNTIME.block_on(fuzz_read(bytes)) else { return };
    // As the client writes it, it is the same request, with the same data.
    let mut line = serde_json::to_vec(&request).unwrap();
    line.push(b'\n');
    let again = RUNTIME.block_on(fuzz_read(&[&line, &authority[..], &list].concat()));
    if line.len() <= 4096 {
        assert_eq!(again, Some((request.clone(), authority.clone(), list.clone())));
    }
    match request {
        Request::InForce { authority_bytes } => {
            assert_eq!((authority.len(), list.len()), (authority_bytes, 0));
        }
        Request::TakeList { authority_bytes, list_bytes } => {
            assert_eq!((authority.len(), list.len()), (authority_bytes, list_bytes));
            assert!(list.len() <= LIST_MAX);
        }
        // It never selects every session: that is a request of its own.
        Request::Cut { selector } => assert_ne!(SessionSelector::parse(&selector), Ok(SessionSelector::All)),
        Request::Why { wanted, .. } => {
            let _ = Wanted::parse(&wanted);
        }
        _ => assert!(authority.is_empty() && list.is_empty()),
    }
});
