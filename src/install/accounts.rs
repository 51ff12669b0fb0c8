//! Users and groups of a system, from `/etc/passwd` and `/etc/group`.
//!
//! The gate's own account is a local one, so the files are enough for it, and they can be read below another root.

use std::io;
use std::path::Path;

/// The users and groups of a system.
#[derive(Clone, Debug, Default)]
pub(super) struct Accounts {
    users: Vec<User>,
    groups: Vec<Group>,
}

/// A line of `/etc/passwd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) id: u32,
    pub(super) group: u32,
}

/// A line of `/etc/group`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) name: String,
    pub(super) id: u32,
    pub(super) members: Vec<String>,
}

impl Accounts {
    /// Those of the system at `root`. A missing file has no entries.
    pub(super) fn read(root: &Path) -> io::Result<Self> {
        let text = |file: &str| match std::fs::read(root.join(file)) {
            Ok(text) => Ok(String::from_utf8_lossy(&text).into_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(error),
        };
        Ok(Self::parse(&text("etc/passwd")?, &text("etc/group")?))
    }

    fn parse(passwd: &str, group: &str) -> Self {
        let users = passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let (name, id) = (fields.next()?.to_owned(), fields.nth(1)?.parse().ok()?);
            Some(User { name, id, group: fields.next()?.parse().ok()? })
        });
        let groups = group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let (name, id) = (fields.next()?.to_owned(), fields.nth(1)?.parse().ok()?);
            let members = fields.next().unwrap_or_default().split(',').filter(|name| !name.is_empty());
            Some(Group { name, id, members: members.map(str::to_owned).collect() })
        });
        Self { users: users.collect(), groups: groups.collect() }
    }

    /// The user of this name.
    pub(super) fn user(&self, name: &str) -> Option<&User> {
        self.users.iter().find(|user| user.name == name)
    }

    /// The user with this number.
    pub(super) fn user_with_id(&self, id: u32) -> Option<&User> {
        self.users.iter().find(|user| user.id == id)
    }

    /// The group of this name.
    pub(super) fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name)
    }

    /// The numbers of the groups that the user is in.
    pub(super) fn groups_of<'a>(&'a self, user: &'a User) -> impl Iterator<Item = u32> + 'a {
        self.groups.iter().filter(|group| self.is_member(user, group)).map(|group| group.id)
    }

    /// Whether the user is in the group.
    pub(super) fn is_member(&self, user: &User, group: &Group) -> bool {
        user.group == group.id || group.members.contains(&user.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_passwd_and_group_are_read_and_other_lines_ignored() {
        let passwd = "root:x:0:0:root:/root:/bin/sh\n\n+::::::\nalice:x:1000:100::/home/alice:/bin/sh\nbad:x:no:0\n";
        let group = "root:x:0:\nusers:x:100:\ndoorward:x:997:bob,alice\nbroken\n";
        let accounts = Accounts::parse(passwd, group);
        let alice = accounts.user("alice").expect("a user");
        assert_eq!((alice.id, alice.group), (1000, 100));
        assert_eq!(accounts.user_with_id(1000), Some(alice));
        let member = |name| accounts.is_member(alice, accounts.group(name).expect("a group"));
        assert!(member("users") && member("doorward") && !member("root"));
        assert!(accounts.user("bad").is_none() && accounts.group("broken").is_none());
    }
}
