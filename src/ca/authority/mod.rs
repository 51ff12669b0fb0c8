//! The two authorities of a household, and the policy of what they sign: names, validity, limits.
//!
//! There are two because they answer two questions. [`ServerAuthority`] is installed on phones and browsers, which then
//! trust what it signs, so it is limited to one domain. [`DeviceAuthority`] is trusted by the gate alone, and says which
//! devices are admitted. With one key for both, the key in every device's trust store could also make up devices.

mod device;
mod renewal;
mod server;

pub use device::{DeviceAuthority, Guest, certify_device};
pub use renewal::{NotRenewable, RenewalAuthority, certify_renewed};
pub use server::{NameConstraintPolicy, ServerAuthority, certify_server, default_names};

use crate::pki::{Error, random};

/// How long an authority is valid, in days: ten years, since replacing one means touching every device.
pub const AUTHORITY_DAYS: i64 = 3650;

/// How long a server certificate is valid, in days.
///
/// Apple rejects server certificates that are valid for more than 825 days, even under a root that the user added
/// (<https://support.apple.com/en-us/103769>). The limit of 398 days is for the roots that ship with its systems
/// (<https://support.apple.com/en-us/102028>, which advises 397); 397 satisfies every client.
pub const SERVER_DAYS: i64 = 397;

/// How long a device certificate is valid, in days: two years and three months, as mkcert's.
pub const DEVICE_DAYS: i64 = 825;

/// How long the authority that renews without the owner is valid, in days. Its key is on the gate's machine: two years after that was
/// stolen unnoticed, it is worth nothing.
pub const RENEWAL_AUTHORITY_DAYS: i64 = 730;

/// The length of the random part of an authority's name: 30 bits, so that two households do not share a name by accident.
const NAME_TAG: usize = 6;

/// The characters of the random part. None looks like another: there is no o, i or l.
const NAME_ALPHABET: &[u8; 32] = b"23456789abcdefghjkmnpqrstuvwxyz0";

/// The common name of a new authority: `prefix` and a random part. Path building and revocation lists go by names, and many
/// programs confuse two authorities of one name.
fn unique_name(prefix: &str) -> Result<String, Error> {
    let tag: String = random::<NAME_TAG>()?
        .iter()
        .map(|byte| NAME_ALPHABET.get(usize::from(byte % 32)).copied().map_or('2', char::from))
        .collect();
    Ok(format!("{prefix} {tag}"))
}

#[cfg(test)]
mod tests;
