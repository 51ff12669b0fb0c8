//! The kernel's restriction of files, TCP ports, abstract sockets and signals (landlock(7)).

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, Scope, path_beneath_rules,
};

use super::needs::Needs;

/// The versions of the kernel's interface that first restrict something, with what that is and the Linux version that has it.
const FILES: u32 = 1;
const TRUNCATION: u32 = 3;
const PORTS: u32 = 4;
const DEVICES: u32 = 5;
const SCOPES: u32 = 6;

/// The parts that a kernel may lack.
const PARTS: &[(u32, &str)] = &[
    (TRUNCATION, "truncating files is not restricted: that takes Linux 6.2"),
    (PORTS, "TCP ports are not restricted: that takes Linux 6.7"),
    (DEVICES, "ioctl on devices is not restricted: that takes Linux 6.10"),
    (SCOPES, "abstract sockets and signals are not restricted: that takes Linux 6.12"),
];

/// What is restricted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Restricted {
    /// The version of the interface that the kernel has; 0 for none.
    pub(super) version: u32,
}

impl Restricted {
    pub(super) const fn files(self) -> bool {
        self.version >= FILES
    }

    pub(super) const fn ports(self) -> bool {
        self.version >= PORTS
    }

    pub(super) const fn scopes(self) -> bool {
        self.version >= SCOPES
    }

    /// What the kernel lacks, in words.
    pub(super) fn lacks(self) -> Vec<String> {
        if !self.files() {
            return Vec::new();
        }
        PARTS.iter().filter(|(since, _)| self.version < *since).map(|(_, lacks)| (*lacks).to_owned()).collect()
    }
}

/// Restricts this thread, and those that it starts, to what `needs` names.
///
/// # Errors
/// Why nothing is restricted.
pub(super) fn restrict(needs: &Needs) -> Result<Restricted, String> {
    let status = rules(needs).map_err(|error| error.to_string())?;
    match status {
        LandlockStatus::Available { effective_abi, kernel_abi } => {
            // One that is newer than the crate restricts at least as much.
            let version = kernel_abi.and_then(|version| u32::try_from(version).ok()).unwrap_or(effective_abi as u32);
            Ok(Restricted { version })
        }
        LandlockStatus::NotEnabled => {
            Err("the kernel has Landlock, but it is not enabled: add landlock to lsm= of the kernel's \
                                           command line"
                .to_owned())
        }
        LandlockStatus::NotImplemented => Err("the kernel has no Landlock: that takes Linux 5.13".to_owned()),
    }
}

fn rules(needs: &Needs) -> Result<LandlockStatus, RulesetError> {
    const VERSION: ABI = ABI::V6;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let log = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::MakeReg;
    // Files are made there, replaced and removed.
    let history =
        AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::WriteFile | AccessFs::MakeReg | AccessFs::RemoveFile;
    // Their files were made before. They are removed at the end, or at the end of a hand-over.
    let control: BitFlags<AccessFs> = AccessFs::RemoveFile.into();
    let ports = |ports: std::collections::BTreeSet<u16>, access| {
        ports.into_iter().map(move |port| Ok::<_, RulesetError>(NetPort::new(port, access)))
    };
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(VERSION))?
        .handle_access(AccessNet::from_all(VERSION))?
        .scope(Scope::from_all(VERSION))?
        .create()?
        .add_rules(path_beneath_rules(needs.reads(), read))?
        .add_rules(path_beneath_rules(needs.log_folders(), log))?
        .add_rules(path_beneath_rules(needs.log.iter(), AccessFs::ReadFile | AccessFs::WriteFile))?
        .add_rules(path_beneath_rules(needs.state_folders(), history))?
        .add_rules(path_beneath_rules(needs.control_folders(), control))?
        .add_rules(ports(needs.connect_ports(), AccessNet::ConnectTcp))?
        .add_rules(ports(needs.bind_ports(), AccessNet::BindTcp))?
        .restrict_self()?;
    Ok(status.landlock)
}
