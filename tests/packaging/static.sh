# The static programs: what they need, and their start on an old Debian.
# shellcheck shell=bash

version=$(sed -n '/^\[package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$repository/Cargo.toml")
rm -rf "$work/static"
mkdir "$work/static"
for triple in ${PACKAGING_TARGETS:-x86_64-unknown-linux-musl}; do
  name=doorward-$version-$triple
  check "$triple: archive is unpacked" tar -C "$work/static" -xzf "$out/$name.tar.gz"
  program=$work/static/$name/doorward
  same "$triple: contents of the archive" "LICENSE-APACHE LICENSE-MIT doorward third-party.gz" \
    "$(cd "$work/static/$name" && find . -type f -printf '%P\n' | LC_ALL=C sort | tr '\n' ' ' | sed 's/ $//')"
  refuse "$triple: no loader" grep -q INTERP <(readelf --program-headers --wide "$program")
  refuse "$triple: no library" grep -q NEEDED <(readelf --dynamic --wide "$program")
  # Rust's target for arm64 makes no static program that is position independent, whatever the linker is told.
  type=DYN what="position independent"
  [[ $triple != aarch64-* ]] || type=EXEC what="at a fixed address, as the manual says"
  check "$triple: $what" grep -q "Type: *$type" <(readelf --file-header "$program")
  check "$triple: stack is not executable" grep -qE 'GNU_STACK.* RW ' <(readelf --program-headers --wide "$program")
  # Messages of panics name the source files of crates.
  same "$triple: crates in it are all in the notices" "" "$(grep -aoE 'index\.crates\.io-[0-9a-f]+/[a-z0-9_-]+-[0-9]+\.[0-9]+\.[0-9a-z.+-]+/' "$program" |
    sed -E 's|^[^/]*/||; s|/$||; s|-([0-9]+\.[0-9]+\.)| \1|' | sort -u |
    grep -vxFf <(zcat "$work/static/$name/third-party.gz" | sed -n 's/^\([^ ]* [0-9][^ :]*\): .*/\1/p') || true)"
  for library in "Rust's standard library" musl; do
    check "$triple: notices have $library" grep -qxF "$library" <(zcat "$work/static/$name/third-party.gz")
  done
  check "$triple: names of functions stay" grep -q ' \.symtab' <(readelf --section-headers --wide "$program")
  check "$triple: lines are in the other file" grep -q debug_line <(readelf --section-headers --wide "$out/$name.debug")
done

# What a device needs alone.
name=doorward-connect-$version-x86_64-unknown-linux-musl
check "devices: archive is unpacked" tar -C "$work/static" -xzf "$out/$name.tar.gz"
program=$work/static/$name/doorward
refuse "devices: no library" grep -q NEEDED <(readelf --dynamic --wide "$program")
check "devices: version" grep -qx "doorward $version" <("$program" --version)
check "devices: no home yet" grep -q 'This user has joined no home' <(HOME=$work XDG_CONFIG_HOME=$work "$program" join --list 2>&1)
check "devices: no gate" grep -q 'commands of a device alone' <("$program" run 2>&1)
refuse "devices: crates of the gate alone are not in the notices" grep -q '^landlock ' <(zcat "$work/static/$name/third-party.gz")

# What doorward does in a folder of this machine: a device is admitted, revoked and refused.
backend
journey() { # WHAT FOLDER COMMAND…: with this program, and a folder that it sees as /root
  local what=$1 seen=$2 gate; shift 2
  admitted() { (cd "$seen" && curl --silent --max-time 20 --cert doorward/devices/alice-phone.pem --key doorward/devices/alice-phone-key.pem \
    --cacert doorward/pki/server-ca.pem --resolve nas.home.example:8443:127.0.0.1 https://nas.home.example:8443/) | grep -q 'web page'; }
  check "$what: version" grep -qx "doorward $version" <("$@" --version)
  check "$what: init" "$@" init --domain home.example --route nas=localhost:5666 --device alice-phone
  # Not the lines of the gate before.
  : > "$work/gate"
  "$@" run --config doorward/doorward.toml >> "$work/gate" 2>&1 &
  gate=$!
  until_true "the gate is ready" grep -q ' ready$' "$work/gate"
  check "$what: device is admitted, and the backend's name was found" admitted
  check "$what: revocation is in force" "$@" ca revoke alice-phone --config doorward/doorward.toml
  refuse "$what: revoked device stays out" admitted
  kill "$gate"
  local code=0
  wait "$gate" || code=$?
  same "$what: SIGTERM ends it with 0" 0 "$code"
}

# The oldest Debian that Debian's mirrors have. They have no Debian 10 any more, whose glibc is 2.28: without a loader and
# without libraries, the libraries do not matter, and so they are taken away as well.
copy_of bullseye
cp "$work/static/doorward-$version-x86_64-unknown-linux-musl/doorward" "$root/root/"
same "system is Debian 11" 11 "$(sed 's/\..*//' "$root/etc/debian_version")"
echo "127.0.0.1 localhost" > "$root/etc/hosts"
mkdir "$root/root/with"
journey "Debian 11" "$root/root/with" chroot "$root" /bin/sh -c 'cd /root/with && exec /root/doorward "$@"' sh
# A system of one file and the names of this machine.
bare=$work/changes/bare
mkdir -p "$bare/root" "$bare/etc" "$bare/proc" "$bare/dev" "$bare/tmp"
cp "$root/root/doorward" "$bare/"
echo "127.0.0.1 localhost" > "$bare/etc/hosts"
mount -t proc proc "$bare/proc"
touch "$bare/dev/null" && mount --bind /dev/null "$bare/dev/null"
journey "no system at all" "$bare/root" python3 -c 'import os, sys; os.chroot(sys.argv[1]); os.chdir("/root"); os.execv("/doorward", ["doorward", *sys.argv[2:]])' "$bare"

[[ ${PACKAGING_TARGETS:-} == *aarch64* ]] || return 0
# For arm64: on an emulated processor.
# Not in the folder of the program: "init" makes a folder of the same name.
mkdir "$work/changes/arm64"
cd "$work/changes/arm64"
journey "arm64" "$work/changes/arm64" qemu-aarch64-static "$work/static/doorward-$version-aarch64-unknown-linux-musl/doorward"
