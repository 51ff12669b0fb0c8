//! Keys in a token: SoftHSM2, behind a module that can go away, be slow, and lock.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use super::process::{Finished, run, tool};

/// SoftHSM2 itself.
pub(crate) const SOFTHSM: &str = "/usr/lib/softhsm/libsofthsm2.so";

/// The PIN.
pub(crate) const PIN: &str = "432198";

/// A token called `alice` with keys, in a folder of its own.
pub(crate) struct Token {
    folder: TempDir,
}

/// The module of token.c.
fn module() -> &'static Path {
    static MODULE: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, module) = MODULE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let module = folder.path().join("token.so");
        let mut gcc = tool("gcc", "gcc");
        gcc.args(["-shared", "-fPIC", "-Wall", "-Werror"])
            .arg(format!("-DMODULE=\"{SOFTHSM}\""))
            .arg("-o")
            .arg(&module);
        run(gcc.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/token.c"))).success();
        (folder, module)
    });
    module
}

impl Token {
    /// Without keys.
    pub(crate) fn new() -> Self {
        let token = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(token.path("tokens")).unwrap();
        let config = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            token.path("tokens").display()
        );
        fs::write(token.path("softhsm2.conf"), config).unwrap();
        token.write_pin(PIN);
        let mut init = tool("softhsm2-util", "softhsm2");
        init.args(["--init-token", "--free", "--label", "alice", "--so-pin", "12345678", "--pin", PIN]);
        run(token.with(&mut init)).success();
        token
    }

    /// With a key of this type, as pkcs11-tool calls it.
    pub(crate) fn of(kind: &str) -> Self {
        let token = Self::new();
        token.generate(kind, "01");
        token
    }

    /// Makes a key.
    pub(crate) fn generate(&self, kind: &str, id: &str) {
        self.tool(&["--keypairgen", "--key-type", kind, "--id", id, "--label", "laptop"]);
    }

    /// Runs pkcs11-tool on the token, logged in.
    #[track_caller]
    pub(crate) fn tool(&self, arguments: &[&str]) -> Finished {
        let mut tool = tool("pkcs11-tool", "opensc");
        tool.args(["--module", SOFTHSM, "--token-label", "alice", "--login", "--pin", PIN]).args(arguments);
        run(self.with(&mut tool)).success()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The URI of the key 01, with the PIN in a file.
    pub(crate) fn uri(&self) -> String {
        format!("{}&pin-source=file:{}", self.uri_without_pin(), self.path("pin").display())
    }

    /// The same without the PIN.
    pub(crate) fn uri_without_pin(&self) -> String {
        format!("pkcs11:token=alice;id=%01?module-path={}", module().display())
    }

    /// Writes the file with the PIN.
    pub(crate) fn write_pin(&self, pin: &str) {
        fs::write(self.path("pin"), format!("{pin}\n")).unwrap();
        fs::set_permissions(self.path("pin"), fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Lets a command find the token.
    pub(crate) fn with<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        for (variable, value) in self.variables() {
            command.env(variable, value);
        }
        command
    }

    /// What a command needs to find it.
    pub(crate) fn variables(&self) -> [(&'static str, PathBuf); 2] {
        [("SOFTHSM2_CONF", self.path("softhsm2.conf")), ("DOORWARD_TEST_TOKEN", self.folder.path().to_owned())]
    }

    /// Lets it be `gone`, `slow`, `locked`, `locking` or at its `final` try, or not any more.
    pub(crate) fn set(&self, what: &str, on: bool) {
        if on { fs::write(self.path(what), "") } else { fs::remove_file(self.path(what)) }.unwrap();
    }

    /// How many `logins` or `signatures` it was asked for.
    pub(crate) fn count(&self, what: &str) -> usize {
        fs::read_to_string(self.path(what)).unwrap_or_default().lines().count()
    }
}
