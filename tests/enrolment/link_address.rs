//! The addresses at which a link listens.

use std::net::{Ipv4Addr, TcpListener, TcpStream};

use serde_json::{Value, json};

use crate::common::process::run;
use crate::home::{Home, LOOPBACK};
use crate::shared::{Shared, share};

#[test]
fn public_addresses_are_refused_unless_allowed() {
    let home = Home::new();
    for public in ["203.0.113.9", "8.8.8.8", "100.64.0.1", "2001:db8::1"] {
        let refused = run(share(&home).args(["--address", public])).failure();
        assert_eq!(refused.status.code(), Some(2), "{refused}");
        assert!(refused.stderr.contains("is not a private address"), "{refused}");
        assert!(refused.stderr.contains("--address 192.168.1.5 (or add --allow-public)"), "{refused}");
    }
    for every in ["0.0.0.0", "::"] {
        let refused = run(share(&home).args(["--address", every, "--allow-public"])).failure();
        assert_eq!(refused.status.code(), Some(2), "{refused}");
        assert!(refused.stderr.contains("all addresses of this machine"), "{refused}");
    }
    // If allowed, only the system refuses: this machine has no such address.
    let told = run(share(&home).args(["--address", "203.0.113.9", "--allow-public"])).failure();
    assert_eq!(told.status.code(), Some(4), "{told}");
    assert!(told.stderr.contains("cannot listen on 203.0.113.9:0"), "{told}");

    let taken = TcpListener::bind((LOOPBACK, 0)).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let refused = run(share(&home).args(["--address", "127.0.0.1", "--port", &port])).failure();
    assert_eq!(refused.status.code(), Some(4), "{refused}");

    // It listens at no other address.
    let shared = Shared::start(&home, &[]);
    let elsewhere = (Ipv4Addr::new(127, 0, 0, 2), shared.url().split([':', '/']).nth(4).unwrap().parse().unwrap());
    assert!(TcpStream::connect(elsewhere).is_err());
}

/// A network namespace: this machine's private address, which is the source of its packets, and a router that forwards
/// everything to it ("DMZ host").
const NETWORK: &str = r#"
ip link set lo up
ip address add 10.9.9.1/32 dev lo
ip address add 203.0.113.9/32 dev lo
ip route add default dev lo src 10.9.9.1
coproc SHARE { exec "$1" share alice-phone --format json $2; }
share=$SHARE_PID
read -r ready <&"${SHARE[0]}"
url=$(sed 's/.*"url":"\([^"]*\)".*/\1/' <<<"$ready")
echo "$url"
for who in 203.0.113.9 10.9.9.1; do
    curl --silent --max-time 5 --interface "$who" --output /dev/null --write-out "$who %{http_code}\n" "$url" || true
done
kill -INT "$share"
wait "$share" || echo "exit $?"
"#;

#[test]
fn private_address_is_chosen_and_only_private_ones_served() {
    let home = Home::new();
    let network = |more: &str| {
        let mut unshare = home.tool("unshare", "util-linux");
        unshare.args(["--net", "bash", "-euc", NETWORK, "bash", env!("CARGO_BIN_EXE_doorward"), more]);
        let shown = run(&mut unshare).success();
        let (url, rest) = shown.text().split_once('\n').map(|(url, rest)| (url.to_owned(), rest.to_owned())).unwrap();
        assert!(url.starts_with("http://10.9.9.1:"), "{shown}");
        rest
    };
    assert_eq!(network(""), "203.0.113.9 000\n10.9.9.1 200\nexit 9\n");
    assert_eq!(network("--allow-public"), "203.0.113.9 200\n10.9.9.1 200\nexit 9\n");
}

/// The machine's default route is a VPN; the phone is in 192.168.1.0/24.
const VPN: &str = r#"
ip link set lo up
ip address add 192.168.1.5/24 dev lo
ip address add "$2" dev lo
ip route add default dev lo src "${2%/*}"
coproc SHARE { exec "$1" share alice-phone $3; }
share=$SHARE_PID
read -r ready <&"${SHARE[0]}"
echo "$ready"
kill -INT "$share"
wait "$share" || true
"#;

#[test]
fn address_of_a_vpn_is_listed_and_not_chosen() {
    let home = Home::new();
    let share = |vpn: &str, options: &str| {
        let mut unshare = home.tool("unshare", "util-linux");
        unshare.args(["--net", "bash", "-euc", VPN, "bash", env!("CARGO_BIN_EXE_doorward"), vpn, options]);
        run(&mut unshare).success()
    };
    let json = |vpn: &str, options: &str| -> Value { serde_json::from_str(share(vpn, options).text().trim()).unwrap() };
    let at = |ready: &Value, address: &str| {
        let url = ready["url"].as_str().unwrap();
        assert!(url.starts_with(&format!("http://{address}:")), "{ready}");
    };
    let ready = json("10.8.0.2/24", "--format json");
    at(&ready, "192.168.1.5");
    assert_eq!(ready["other_addresses"], json!([{"address": "10.8.0.2", "interface": "lo", "kind": "loopback"}]));
    // Tailscale's addresses are not private.
    let ready = json("100.101.102.103/32", "--format json");
    at(&ready, "192.168.1.5");
    assert_eq!(ready["other_addresses"], Value::Null);
    // The user's choice.
    let ready = json("10.8.0.2/24", "--format json --address 10.8.0.2");
    at(&ready, "10.8.0.2");
    assert_eq!(ready["other_addresses"], Value::Null);
}
