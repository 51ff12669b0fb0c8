//! Gives up the capabilities of the process (capabilities(7)). A gate that root starts keeps one only where it cannot do without:
//! to read its files, write its log or reach a socket of another user.

use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::io::{Errno, Result};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities,
};

use super::needs::Needs;
use crate::config::checked::Backend;

/// Gives up every capability but those that `needs` cannot do without. Returns the names of those that stay.
pub(super) fn give_up(needs: &Needs) -> Result<Vec<&'static str>> {
    let before = capabilities(None)?;
    // First: it takes CAP_SETPCAP. Without that, no_new_privs keeps what is left of the set from having an effect.
    for bit in 0..u64::BITS {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::PERM) => break,
            Err(error) => return Err(error),
        }
    }
    match clear_ambient_capability_set() {
        // Linux 4.2 and older have no such set.
        Ok(()) | Err(Errno::INVAL) => {}
        Err(error) => return Err(error),
    }
    let none = CapabilitySet::empty();
    if before.permitted.is_empty() && before.inheritable.is_empty() {
        // The filter of a service manager may refuse the call, which would have no effect.
        return Ok(Vec::new());
    }
    set_capabilities(None, CapabilitySets { effective: none, ..before })?;
    let kept = indispensable(needs) & before.permitted;
    set_capabilities(None, CapabilitySets { effective: kept, permitted: kept, inheritable: none })?;
    Ok([(CapabilitySet::DAC_OVERRIDE, "CAP_DAC_OVERRIDE"), (CapabilitySet::DAC_READ_SEARCH, "CAP_DAC_READ_SEARCH")]
        .into_iter()
        .filter_map(|(capability, name)| kept.contains(capability).then_some(name))
        .collect())
}

/// What the gate cannot do without; found out by trying, without any in effect.
fn indispensable(needs: &Needs) -> CapabilitySet {
    let refused = |path: &Path, access| accessat(CWD, path, access, AtFlags::EACCESS) == Err(Errno::ACCESS);
    let log = needs.log_folders();
    let writes = log.iter().any(|folder| refused(folder, Access::WRITE_OK | Access::EXEC_OK))
        || needs.log.as_ref().is_some_and(|file| refused(file, Access::WRITE_OK | Access::READ_OK));
    // A socket that is not there yet may be made by any user.
    let connects = needs.backends.iter().any(|(_, backend)| match backend {
        Backend::Unix(path) => accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_err(),
        Backend::Address(_) | Backend::Host(..) => false,
    });
    if writes || connects {
        // It comprises the other.
        return CapabilitySet::DAC_OVERRIDE;
    }
    let reads = needs.files.iter().any(|file| {
        let open = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(file);
        open.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    });
    if reads { CapabilitySet::DAC_READ_SEARCH } else { CapabilitySet::empty() }
}
