//! System calls and other foreign functions that no safe crate offers, or that need care.
//!
//! All `unsafe` code of the crate is here, one call per block.

#[cfg(unix)]
pub mod inherited;
#[cfg(windows)]
pub mod standard_output;
pub mod terminal;

#[cfg(feature = "gate")]
pub mod accepted;
#[cfg(feature = "gate")]
pub mod activation;
#[cfg(feature = "gate")]
pub mod cpu;
#[cfg(feature = "gate")]
pub mod credentials;
#[cfg(feature = "gate")]
pub mod descriptors;
#[cfg(feature = "gate")]
pub mod inotify;
#[cfg(feature = "gate")]
pub mod interfaces;
#[cfg(feature = "gate")]
pub mod ktls;
#[cfg(feature = "gate")]
pub mod socket;
#[cfg(feature = "gate")]
pub mod splice;
#[cfg(feature = "gate")]
pub mod stream;

/// What tests need to know about this machine's kernel.
#[cfg(test)]
#[cfg(feature = "gate")]
pub(crate) mod test_kernel {
    use std::sync::LazyLock;

    /// Whether the kernel offers TLS. tests/vm/run.sh sets `GATE_REQUIRE_KTLS` in its virtual machines, where missing kernel
    /// TLS is a failure. Elsewhere the tests cover the fallback.
    pub(crate) fn has_tls() -> bool {
        static HAS: LazyLock<bool> = LazyLock::new(|| {
            let ulps = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_ulp").unwrap_or_default();
            let has = ulps.split_whitespace().any(|ulp| ulp == "tls");
            assert!(has || std::env::var_os("GATE_REQUIRE_KTLS").is_none(), "this kernel offers no TLS: {ulps}");
            has
        });
        if !*HAS {
            eprintln!("this kernel has no TLS: the fallback is tested; tests/vm runs this test with kernel TLS");
        }
        *HAS
    }
}

/// Ports for tests.
#[cfg(test)]
#[cfg(feature = "gate")]
pub(crate) mod test_port {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::{Mutex, PoisonError};

    use socket2::{Domain, Socket, Type};

    /// An address with a port of the kernel's choice that stays this process' own: while none listens there, connections are
    /// refused, and no other test is given the port. Listeners of std and tokio set SO_REUSEADDR, and can take it.
    pub(crate) fn kept() -> SocketAddr {
        static KEPT: Mutex<Vec<Socket>> = Mutex::new(Vec::new());
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_reuse_address(true).expect("an option");
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a port");
        let address = socket.local_addr().expect("an address").as_socket().expect("of IP");
        KEPT.lock().unwrap_or_else(PoisonError::into_inner).push(socket);
        address
    }
}
