//! A machine whose kernel has no IPv6 (`ipv6.disable=1`).

use std::path::PathBuf;

use tempfile::TempDir;

use crate::client::{Client, client};
use crate::common::backend::Backend;
use crate::common::gate::Gate;
use crate::common::pki::TestPki;
use crate::common::process::{run_with_input, tool};
use crate::home::House;
use crate::{NAS, controlled};

/// `socket(2)` as such a kernel has it.
const SOCKET: &str = "
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/socket.h>
int socket(int domain, int type, int protocol) {
    if (domain == AF_INET6) { errno = EAFNOSUPPORT; return -1; }
    int (*real)(int, int, int) = (int (*)(int, int, int))dlsym(RTLD_NEXT, \"socket\");
    return real(domain, type, protocol);
}";

fn library(folder: &TempDir) -> PathBuf {
    let library = folder.path().join("no6.so");
    let mut gcc = tool("gcc", "gcc");
    gcc.args(["-shared", "-fPIC", "-x", "c", "-", "-ldl", "-o"]).arg(&library);
    run_with_input(&mut gcc, SOCKET.as_bytes()).success();
    library
}

#[test]
fn wildcard_address_is_ipv4_only_without_ipv6() {
    let folder = tempfile::tempdir().unwrap();
    let library = library(&folder);
    let pki = TestPki::new();
    let backend = Backend::echo();
    let alice = client(&pki, Some(&pki.client("alice-phone")));
    let config = controlled(&House::new(&pki).route("nas", backend.address()));
    assert!(config.contains("address = \"127.0.0.1:0\""), "{config}");
    let every = config.replacen("address = \"127.0.0.1:0\"", "address = \"[::]:0\"", 1);
    let gate = Gate::start_with(&every, |command| {
        command.env("LD_PRELOAD", &library);
    });
    let mut address = gate.address();
    assert_eq!(address.ip().to_string(), "0.0.0.0");
    assert!(gate.stderr().contains("warning: this machine has no IPv6"), "{}", gate.stderr());
    address.set_ip([127, 0, 0, 1].into());
    drop(Client::admitted(address, &alice, NAS).unwrap());

    // One that comes with a reload, too; what is there already is not warned of again.
    let more = format!("{every}\n[[listener]]\nname = \"more\"\naddress = \"[::]:0\"\n");
    let reloaded = gate.reload(&more);
    let warnings = reloaded["warnings"].as_array().unwrap();
    let warned = warnings.iter().filter(|text| text.as_str().unwrap().contains("no IPv6")).count();
    assert_eq!((&reloaded["event"], warned), (&"reloaded".into(), 1), "{reloaded}");
    // An address of IPv6 cannot be had.
    let loopback = format!("{every}\n[[listener]]\nname = \"more\"\naddress = \"[::1]:0\"\n");
    let refused = gate.reload(&loopback);
    assert_eq!(refused["event"], "reload_failed", "{refused}");
    assert!(refused.to_string().contains("this machine has no IPv6: write an IPv4 address"), "{refused}");
}
