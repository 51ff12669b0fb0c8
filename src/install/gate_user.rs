//! The user that the gate runs as, and the groups it is in.

use std::path::Path;

use super::accounts::Accounts;
use super::{CONFIG, FOLDER, USER};

/// Where systemd finds the unit, most important first.
const UNITS: [&str; 3] = [
    "etc/systemd/system/doorward.service",
    "usr/lib/systemd/system/doorward.service",
    "lib/systemd/system/doorward.service",
];

/// The folder of additions to the unit.
const DROP_INS: &str = "etc/systemd/system/doorward.service.d";

/// A user, with the groups that a service of this user is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GateUser {
    /// The name.
    pub name: String,
    /// The user's number.
    pub user: u32,
    /// The number of the user's own group.
    pub group: u32,
    /// The numbers of the other groups.
    pub groups: Vec<u32>,
}

impl GateUser {
    /// The user of the service, if `config` is the installed configuration: `User=` of the unit and its additions, else that of
    /// `doorward install`. `None` if there is no such user.
    pub fn of_installed(config: &Path) -> Option<Self> {
        Self::of_service(Path::new("/"), config)
    }

    /// The user of this name. `None` if there is none on this machine.
    pub fn named(name: &str) -> Option<Self> {
        Self::in_system(Path::new("/"), name)
    }

    fn of_service(root: &Path, config: &Path) -> Option<Self> {
        let installed = Path::new(FOLDER).join(CONFIG);
        if config != installed {
            return None;
        }
        let unit = UNITS.iter().find_map(|unit| std::fs::read_to_string(root.join(unit)).ok());
        let mut additions: Vec<_> = std::fs::read_dir(root.join(DROP_INS)).into_iter().flatten().flatten().collect();
        additions.sort_by_key(std::fs::DirEntry::file_name);
        let additions = additions
            .iter()
            .filter(|file| file.path().extension().is_some_and(|end| end == "conf"))
            .filter_map(|file| std::fs::read_to_string(file.path()).ok());
        let name = unit.into_iter().chain(additions).filter_map(|text| user_of(&text)).next_back();
        Self::in_system(root, name.as_deref().unwrap_or(USER))
    }

    fn in_system(root: &Path, name: &str) -> Option<Self> {
        let accounts = Accounts::read(root).ok()?;
        let user = accounts.user(name)?;
        let groups = accounts.groups_of(user).filter(|group| *group != user.group).collect();
        Some(Self { name: user.name.clone(), user: user.id, group: user.group, groups })
    }
}

/// `User=` of a unit, the last one.
fn user_of(unit: &str) -> Option<String> {
    let values = unit.lines().filter_map(|line| line.trim().strip_prefix("User="));
    values.map(|value| value.trim().to_owned()).rfind(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_is_that_of_the_unit_and_its_additions() {
        let root = tempfile::tempdir().expect("a folder");
        let write = |file: &str, text: &str| {
            let file = root.path().join(file);
            std::fs::create_dir_all(file.parent().expect("a folder")).expect("created");
            std::fs::write(file, text).expect("written");
        };
        let config = Path::new("/etc/doorward/doorward.toml");
        let name = || GateUser::of_service(root.path(), config).map(|user| user.name);
        write("etc/passwd", "root:x:0:0::/root:/bin/sh\ndoorward:x:990:980::/:/bin/false\ngate:x:7:8::/:/bin/false\n");
        write("etc/group", "doorward:x:980:\nssl-cert:x:42:alice,doorward\nothers:x:43:alice\n");
        let found = GateUser::of_service(root.path(), config).expect("the user of the installation");
        assert_eq!((found.user, found.group, found.groups), (990, 980, vec![42]));
        write("lib/systemd/system/doorward.service", "[Service]\nUser=doorward\n");
        assert_eq!(name().as_deref(), Some("doorward"));
        write("etc/systemd/system/doorward.service.d/user.conf", "[Service]\nUser=gate\n");
        write("etc/systemd/system/doorward.service.d/zz.txt", "User=root\n");
        assert_eq!(name().as_deref(), Some("gate"));
        write("etc/passwd", "root:x:0:0::/root:/bin/sh\n");
        assert_eq!(name(), None);
        assert_eq!(GateUser::of_service(root.path(), Path::new("/home/alice/doorward.toml")), None);
    }
}
