//! System calls that no safe crate offers, and the ones whose subtleties want writing down.
//!
//! The only `unsafe` of the crate is in here, one call a block.

pub mod credentials;
pub mod descriptors;
pub mod inotify;
pub mod interfaces;
pub mod ktls;
pub mod socket;
pub mod splice;
pub mod stream;

/// What tests need to know about the machine they run on.
#[cfg(test)]
pub(crate) mod test_kernel {
    use std::sync::LazyLock;

    /// Whether the kernel offers TLS. tests/vm/run.sh sets `GATE_REQUIRE_KTLS` in its virtual machines, whose kernels do:
    /// there a missing one is a failure. Elsewhere the other branch of each test, the fallback, has its only test bed.
    pub(crate) fn has_tls() -> bool {
        static HAS: LazyLock<bool> = LazyLock::new(|| {
            let ulps = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_available_ulp").unwrap_or_default();
            let has = ulps.split_whitespace().any(|ulp| ulp == "tls");
            assert!(has || std::env::var_os("GATE_REQUIRE_KTLS").is_none(), "this kernel offers no TLS: {ulps}");
            has
        });
        if !*HAS {
            eprintln!("no TLS in this kernel: this test checks what happens then; tests/vm runs it where there is one");
        }
        *HAS
    }
}
