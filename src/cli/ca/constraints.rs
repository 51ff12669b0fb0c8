//! `--no-name-constraints`, of `doorward init` and `doorward ca init`.

use clap::Args;

use crate::ca::NameConstraintPolicy;

/// Whether the gate's authority is made without name constraints.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct NameConstraintsArg {
    /// Leave name constraints out of the gate's authority, for devices that cannot read them
    ///
    /// Mbed TLS (ESP32, OpenWrt and other small devices) rejects every certificate with a critical extension that it does
    /// not know, and name constraints are one. The price: a stolen server-ca-key.pem can impersonate any web site,
    /// not only your domain, to every device that trusts server-ca.pem.
    #[arg(long)]
    no_name_constraints: bool,
}

impl NameConstraintsArg {
    /// Whether the option is given.
    pub(in crate::cli) const fn is_given(self) -> bool {
        self.no_name_constraints
    }

    /// What the option says.
    pub(in crate::cli) const fn policy(self) -> NameConstraintPolicy {
        if self.no_name_constraints { NameConstraintPolicy::Unrestricted } else { NameConstraintPolicy::Domain }
    }

    /// The risk of it, in a line.
    pub(in crate::cli) const fn warning(self) -> &'static str {
        if self.no_name_constraints {
            "warning: server-ca.pem has no name constraints: a stolen server-ca-key.pem can impersonate any web site to the \
             devices that trust it. Move that key off this machine, or encrypt it: doorward ca passphrase\n"
        } else {
            ""
        }
    }
}
