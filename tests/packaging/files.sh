# Scripts of packages, and configuration files for routers and containers: read by the programs that will read them.
# shellcheck shell=bash

cd "$repository"
scripts=(packaging/debian/postinst packaging/debian/prerm packaging/debian/postrm packaging/debian/doorward.init deploy/split-symbols)
check "scripts for sh" shellcheck --shell=dash --exclude=SC1091 "${scripts[@]}" deploy/openwrt/doorward.init
check "script for bash" shellcheck packaging/release
for script in "${scripts[@]}" deploy/openwrt/doorward.init; do
  check "syntax of $script for a router's shell" busybox ash -n "$script"
done

# The functions of the script for OpenWrt, with replacements for procd's that print what they are told.
router() {
  busybox ash -euc '
    group_exists() { false; }
    user_exists() { false; }
    group_add_next() { echo "group $*"; }
    user_add() { echo "user $*"; }
    awk() { echo 412; }
    mkdir() { echo "mkdir $*"; }
    chown() { echo "chown $*"; }
    chmod() { echo "chmod $*"; }
    procd_open_instance() { echo open; }
    procd_set_param() { echo "$@"; }
    procd_close_instance() { echo close; }
    . "$1"
    CONFIG=$2
    shift 2
    "$@"' sh deploy/openwrt/doorward.init "$@"
}
same "router: nothing is started without a configuration" "" "$(router /nonexistent start_service)"
started=$(router deploy/compose.yaml start_service)
unit=deploy/doorward.service
same "router: command is that of the unit" "$(sed -n 's|^ExecStart=/usr/local/bin/doorward ||p' "$unit")" \
  "$(sed -n 's|^command /usr/bin/doorward ||p' <<< "$started" | sed 's|deploy/compose.yaml|/etc/doorward/doorward.toml|')"
for line in open close "user doorward" "group doorward" "no_new_privs 1" \
  "env RUNTIME_DIRECTORY=/run/doorward STATE_DIRECTORY=/var/lib/doorward" \
  "chown doorward:doorward /run/doorward" "chmod 750 /run/doorward" \
  "chown doorward:doorward /var/lib/doorward" "chmod 700 /var/lib/doorward"; do
  check "router: $line" grep -qxF "$line" <<< "$started"
done
nofile=$(sed -n 's/^LimitNOFILE=//p' "$unit")
check "router: as many descriptors as in the unit" grep -qxF "limits nofile=$nofile $nofile core=0 0" <<< "$started"
check "script for sysvinit: as many descriptors as in the unit" grep -q -- "--nofile=$nofile " packaging/debian/doorward.init
same "router: user and group" "$(printf '%s\n' 'group doorward' 'user doorward  412 doorward /nonexistent /bin/false')" \
  "$(router /nonexistent setup)"

# Compose.
check "docker-compose reads compose.yaml" docker-compose --file deploy/compose.yaml config --quiet
sed 's/cap_drop/drop_cap/' deploy/compose.yaml > "$work/compose.yaml"
refuse "docker-compose refuses a mistake in it" docker-compose --file "$work/compose.yaml" config --quiet
resolved=$(docker-compose --file deploy/compose.yaml config)
version=$(sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
same "compose.yaml starts this version" "localhost/doorward:$version" "$(sed -n 's/^ *image: \(localhost.doorward:.*\)/\1/p' <<< "$resolved")"
same "compose.yaml has four services" "alertmanager gate grafana prometheus" \
  "$(docker-compose --file deploy/compose.yaml config --services | sort | tr '\n' ' ' | sed 's/ $//')"
for key in "read_only: true" "cap_drop:" "no-new-privileges:true" "stop_grace_period: 45s"; do
  check "gate in compose.yaml: $key" grep -qF -- "$key" <<< "$resolved"
done
check "amtool reads alertmanager.yml" amtool check-config deploy/alertmanager/alertmanager.yml
sed 's/receiver: owner/receiver: other/' deploy/alertmanager/alertmanager.yml > "$work/alertmanager.yml"
refuse "amtool refuses a mistake in it" amtool check-config "$work/alertmanager.yml"
listens=$(sed -n 's/.*--web.listen-address=\(.*:9093\)$/\1/p' deploy/compose.yaml)
check "Prometheus sends alerts to where Alertmanager listens" grep -qF "\"$listens\"" deploy/prometheus/prometheus.yml
check "version of the Debian package is that of Cargo.toml" grep -q "^doorward ($version-" packaging/debian/changelog

# The crates of the program, as cargo itself tells them.
python3 - "$out/doorward-$version.cdx.json" > "$work/crates" <<'PYTHON'
import json, sys
document = json.load(open(sys.argv[1]))
assert (document["bomFormat"], document["metadata"]["component"]["name"]) == ("CycloneDX", "doorward")
for crate in document["components"]:
    assert crate["purl"] and crate["licenses"], crate
    print(crate["name"], crate["version"])
PYTHON
check "list of crates has a known one" grep -qx "rustls $(sed -n '/^name = "rustls"$/{n;s/version = "\(.*\)"/\1/p}' Cargo.lock)" "$work/crates"
refuse "list of crates has none that only tests need" grep -q '^criterion ' "$work/crates"
refuse "list of crates does not name the folder of the build" grep -qF "$repository" "$out/doorward-$version.cdx.json"
