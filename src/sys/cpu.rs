//! What the processor has instructions for.

/// Whether AES-GCM is computed with the processor's own instructions: several times faster than without them, and in the same
/// time for every key.
///
/// The library that does the encryption is asked, so that the answer is about the code that will run: on every architecture,
/// and with what its environment variable (`OPENSSL_ia32cap`, `OPENSSL_armcap`) turns off.
#[expect(unsafe_code, reason = "aws-lc-rs has no function for this")]
pub fn has_aes() -> bool {
    // SAFETY: it has no arguments, and reads variables that aws-lc has set before `main`.
    let has = unsafe { aws_lc_sys::EVP_has_aes_hardware() };
    has != 0
}
