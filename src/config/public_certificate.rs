//! The public certificate of a configuration.

use super::checked::Config;
use crate::model::public_certificate::PublicCertificate;

/// What is shown as the public certificate; `None` if the configuration wants none.
pub fn public_certificate(_config: &Config) -> Option<PublicCertificate> {
    None
}
