//! SMB, whose clients have no TLS, through common forwarders: a real smbd behind the gate,
//! smbclient, and between them stunnel or socat with the client certificate.

use std::net::SocketAddrV4;
use std::process::Command;

use crate::common::gate::Gate;
use crate::common::process::{Daemon, Finished, own_loopback, run};
use crate::ssh::{assert_same, noise};
use crate::walkthrough::{Walkthrough, route};

/// smbd at an address, with a share `nas` for everyone.
pub(crate) fn smbd(files: &Walkthrough, address: SocketAddrV4) -> Daemon {
    let state = files.home("samba");
    std::fs::create_dir_all(files.home("share")).unwrap();
    std::fs::create_dir_all(&state).unwrap();
    let user = run(files.tool("id", "coreutils").arg("-un")).success().text();
    let config = format!(
        "[global]\n\
         server role = standalone server\n\
         interfaces = {ip}/8\n\
         bind interfaces only = yes\n\
         smb ports = {port}\n\
         disable netbios = yes\n\
         disable spoolss = yes\n\
         load printers = no\n\
         printcap name = /dev/null\n\
         map to guest = bad user\n\
         guest account = {user}\n\
         state directory = {state}\n\
         cache directory = {state}\n\
         lock directory = {state}\n\
         private dir = {state}\n\
         pid directory = {state}\n\
         ncalrpc dir = {state}\n\
         [nas]\n\
         path = {share}\n\
         guest ok = yes\n\
         read only = no\n",
        ip = address.ip(),
        port = address.port(),
        user = user.trim(),
        state = state.display(),
        share = files.home("share").display(),
    );
    std::fs::write(files.home("smb.conf"), config).unwrap();
    let mut smbd = files.tool("smbd", "samba");
    Daemon::start(smbd.args(["--foreground", "--no-process-group", "--debug-stdout", "--configfile=smb.conf"]), address)
}

struct Samba {
    files: Walkthrough,
    _smbd: Daemon,
    gate: Gate,
    /// The address of a forwarder.
    local: SocketAddrV4,
}

impl Samba {
    fn new() -> Self {
        let files = Walkthrough::new();
        let address = SocketAddrV4::new(own_loopback(), 4450);
        let smbd = smbd(&files, address);
        let gate = files.gate(&route("smb", &["smb.example.local"], address, &["any"]));
        Self { files, _smbd: smbd, gate, local: SocketAddrV4::new(own_loopback(), 4450) }
    }

    /// stunnel in client mode, with or without the certificate.
    fn stunnel(&self, with_certificate: bool) -> Daemon {
        let me = self.files.me();
        let certificate = format!("cert = {}\nkey = {}\n", me.certificate.display(), me.key.display());
        let config = format!(
            "foreground = yes\npid =\nsyslog = no\n[smb]\nclient = yes\naccept = {}\nconnect = {}\n\
             sni = smb.example.local\ncheckHost = smb.example.local\nverifyChain = yes\nCAfile = {}\n{}",
            self.local,
            self.gate.address(),
            self.files.root().display(),
            if with_certificate { &certificate } else { "" },
        );
        std::fs::write(self.files.home("stunnel.conf"), config).unwrap();
        let mut stunnel = self.files.tool("stunnel4", "stunnel4");
        Daemon::start(stunnel.arg(self.files.home("stunnel.conf")), self.local)
    }

    /// socat, a new process for every connection.
    fn socat(&self) -> Daemon {
        let me = self.files.me();
        let mut socat = self.files.tool("socat", "socat");
        socat.arg(format!("TCP4-LISTEN:{},bind={},fork", self.local.port(), self.local.ip()));
        socat.arg(format!(
            "OPENSSL:{},snihost=smb.example.local,commonname=smb.example.local,verify=1,cafile={},cert={},key={}",
            self.gate.address(),
            self.files.root().display(),
            me.certificate.display(),
            me.key.display(),
        ));
        Daemon::start(&mut socat, self.local)
    }

    fn smbclient(&self, commands: &str) -> Finished {
        let mut smbclient: Command = self.files.tool("smbclient", "smbclient");
        smbclient.args(["--no-pass", "--configfile=smb.conf", "--port", &self.local.port().to_string()]);
        run(smbclient.arg(format!("//{}/nas", self.local.ip())).args(["--command", commands]))
    }

    /// Puts and gets files and compares them.
    #[track_caller]
    fn assert_files_arrive(&self) {
        let files = [("one", 7_000_000), ("two", 1), ("three", 0)];
        for (name, size) in files {
            std::fs::write(self.files.home(name), noise(size)).unwrap();
            self.smbclient(&format!("put {name} {name}; get {name} {name}.back")).success();
            assert_same(&self.files.home(name), &self.files.home("share").join(name));
            assert_same(&self.files.home(name), &self.files.home(&format!("{name}.back")));
        }
        let closed = self.gate.wait_closed("smb", files.len());
        assert!(closed[0]["certificate"].to_string().contains("Anye-MacBook-Air"), "{closed:?}");
        for direction in ["bytes_to_backend", "bytes_to_client"] {
            assert!(closed[0][direction].as_u64() > Some(7_000_000), "{closed:?}");
        }
    }
}

#[test]
fn smbclient_through_stunnel_transfers_files() {
    let samba = Samba::new();
    let _forwarder = samba.stunnel(true);
    samba.assert_files_arrive();
}

#[test]
fn smbclient_through_socat_transfers_files() {
    let samba = Samba::new();
    let _forwarder = samba.socat();
    samba.assert_files_arrive();
}

#[test]
fn smbclient_without_a_certificate_is_rejected() {
    let samba = Samba::new();
    let forwarder = samba.stunnel(false);
    samba.smbclient("ls").failure();
    let rejected = samba.gate.wait_rejected("certificate", "required", 1).remove(0);
    assert_eq!(rejected["route"], "smb", "{rejected}");
    crate::common::process::wait_until("stunnel tells the alert", || {
        forwarder.output().contains("alert certificate required").then_some(())
    });
}
