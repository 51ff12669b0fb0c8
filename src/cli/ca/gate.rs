//! What has to happen for the gate to notice a change.

use crate::pki::inventory::Store;

/// Says how a change of the revocation list at `list` becomes effective.
///
/// A gate reads lists when it starts.
pub(super) fn tell_gate(store: &Store, list: &str) -> String {
    format!(
        "The gate does so once it has read the list: restart it. (If it has a copy elsewhere, copy the list there first.) Its \
         configuration must name the list, under [client_auth]:\n  revocation_lists = [{:?}]\n",
        store.path(list).display().to_string()
    )
}
