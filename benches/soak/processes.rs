//! The processes of the gate: the one that accepts connections, those that upgrades have left, and the launcher of each.

use std::fs;
use std::path::Path;

/// The processes of this group that have not ended: all that the first process has started.
pub(super) fn of_group(group: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| group_of(*pid) == Some(group)).collect()
}

/// The group of a process that has not ended: proc(5), `stat`.
fn group_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the program's name in parentheses: the state, the parent, the group.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    // One that has ended stays as `Z` until its parent has asked how.
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(1)?.parse().ok()
}

/// The processes of this group that have this file open.
pub(super) fn with_open(group: u32, file: &Path) -> Vec<u32> {
    let opened = |pid: u32| {
        // It may end meanwhile, and a descriptor may be closed.
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
        let mut targets = descriptors.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
        targets.any(|target| target == file).then_some(pid)
    };
    of_group(group).into_iter().filter_map(opened).collect()
}
