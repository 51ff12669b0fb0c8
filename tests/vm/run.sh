#!/bin/bash
# Runs tests in virtual machines: those of the kernel path with Debian's kernels, which have TLS, and those of the service
# with Debian's systemd (tests/vm/systemd/run.sh).
#
#   tests/vm/run.sh                  every kernel: functional tests, the cost in instructions; then the service
#   tests/vm/run.sh 6.1 …            only these kernels: 6.1 and 6.12 of Debian 12, and newest, which is Debian 13's backport
#   VM_ONLY=functional|cost|systemd  only this part
#   VM_ONLY=cifs                     a share behind the gate, mounted by the kernel through "doorward forward"; not part of everything
#   VM_ONLY=package                  the Debian package that packaging/release has built, under systemd (tests/packaging/run.sh)
#   VM_TESTS="filter…"               only functional tests whose names contain one of these
#
# qemu emulates the machine (TCG), so the host needs no KVM, and instructions can be counted.
# Kernels come from Debian's mirrors, are unpacked but not installed, and are cached in target/vm. Disks and logs of a run are in
# target/vm/run.*, of which the logs of failed tests remain.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
cache=$target/vm
mkdir -p "$cache"

# Several runs at once share what is cached, and nothing else.
run=$(mktemp -d "$cache/run.XXXXXX")
finish() {
  local code=$?
  [ "$code" -ne 0 ] || rm -rf "$run"
  # The logs stay.
  rm -rf "$run"/root.* "$run"/fetch.* "$run"/disk.* "$run"/new.*
}
trap finish EXIT

# once FUNCTION ARGUMENT…: calls it while no other run does.
once() {
  exec 9> "$cache/lock"
  flock 9
  "$@"
  exec 9>&-
}

# The TLS module and those of its ciphers. A guest has no modprobe: /init loads them and their dependencies.
# Names differ between kernels, so a missing one is no error here; the tests then fail for its cipher.
modules="tls gcm aesni_intel ghash_clmulni_intel chacha20poly1305 chacha chacha_x86_64 poly1305_x86_64"

# The disk of a guest with systemd.
disk_modules="virtio_pci virtio_blk ext4"

# A file system of SMB, and its ciphers.
cifs_modules="cifs nls_utf8 cmac ccm gcm ecb hmac md5 sha256_generic sha512_generic aes_generic"

# Debian 12's kernels come from this machine's package sources; the newest one, which can change keys (6.14 and later), from
# the same mirror's backports to Debian 13, with separate package lists, so that nothing of it is installed by accident.
meta() {
  case $1 in
    6.1 | newest) echo linux-image-cloud-amd64 ;;
    6.12) echo linux-image-6.12-cloud-amd64 ;;
    *) echo "no kernel $1: 6.1, 6.12 or newest" >&2; return 1 ;;
  esac
}

# Prints the Debian mirror of this machine.
mirror() {
  awk '/^(URIs:|deb )/ { for (at = 2; at <= NF; at++) if ($at ~ "^[a-z]+://.*/debian/?$" && !seen++) print $at }
    END { if (!seen) { print "no Debian mirror in /etc/apt" > "/dev/stderr"; exit 1 } }' \
    $(find /etc/apt -name '*.list' -o -name '*.sources')
}

choose_lists() {
  lists=(-o APT::Sandbox::User=root)
  [ "$1" = newest ] || return 0
  mkdir -p "$cache/backports/lists/partial" "$cache/backports/cache/archives/partial"
  local mirror
  mirror=$(mirror)
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie-backports main" > "$cache/backports/sources.list"
  lists+=(-o Dir::Etc::sourcelist="$cache/backports/sources.list" -o Dir::Etc::sourceparts=-
    -o Dir::State::lists="$cache/backports/lists" -o Dir::Cache="$cache/backports/cache")
}

# Prints nothing if the lists have not been fetched.
image_of() { (apt-cache "${lists[@]}" depends "$1" 2>/dev/null || true) | awk '/Depends: linux-image-[0-9]/ && !seen++ { print $2 }'; }

# The packages that hold the kernel and its modules: one, or since Debian 13 two.
parts_of() {
  local parts
  parts=$(apt-cache "${lists[@]}" depends "$1" | awk '/Depends: linux-(binary|modules)-[0-9]/ { print $2 }')
  echo "${parts:-$1}"
}

# unpack_modules LIST MODULE…: copies these and what they depend on from $work/root, and lists them in their load order.
unpack_modules() {
  local list=$work/new/modules/$1 file
  shift
  for module in "$@"; do
    modprobe -d "$work/root" -S "$version" --show-depends "$module" 2>/dev/null || true
  done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r file; do
    case $file in
      *.xz) xz -dc "$file" ;;
      *.zst) zstd -qdc "$file" ;;
      *) cat "$file" ;;
    esac > "$work/new/modules/$(basename "${file%.*}" .ko).ko"
    echo "$(basename "${file%.*}" .ko).ko" >> "$list"
  done
}

# Creates $cache/$1 with vmlinuz and the modules in their load order.
fetch_kernel() {
  local package image part work version kernel
  package=$(meta "$1")
  choose_lists "$1"
  image=$(image_of "$package")
  [ -n "$image" ] || { apt-get "${lists[@]}" update -qq; image=$(image_of "$package"); }
  [ -n "$image" ] || { echo "no package $package for kernel $1: this wants Debian 12" >&2; return 1; }
  [ "$(cat "$cache/$1/package" 2>/dev/null)" = "$image" ] && [ -e "$cache/$1/modules/order.cifs" ] && return
  work=$(mktemp -d "$run/fetch.XXXXXX")
  # A subshell runs the download in the folder of the file.
  download() (cd "$work" && for part in $(parts_of "$1"); do apt-get "${lists[@]}" download -qq "$part" >/dev/null; done)
  download "$image" || { apt-get "${lists[@]}" update -qq; image=$(image_of "$package"); download "$image"; }
  for part in "$work"/*.deb; do dpkg -x "$part" "$work/root"; done
  [ -e "$work/root/lib" ] || ln -s usr/lib "$work/root/lib"
  version=$(basename "$work"/root/lib/modules/*)
  kernel=$(find "$work/root" -name 'vmlinuz*' -type f | head -1)
  find "$work/root" -name 'tls.ko*' | grep -q . || { echo "$image has no TLS" >&2; return 1; }
  depmod -b "$work/root" "$version"
  mkdir -p "$work/new/modules"
  cp "$kernel" "$work/new/vmlinuz"
  unpack_modules order $modules
  unpack_modules order.disk $disk_modules
  unpack_modules order.cifs $cifs_modules
  echo "$image" > "$work/new/package"
  rm -rf "${cache:?}/$1"
  mv "$work/new" "$cache/$1"
  rm -rf "$work"
}

# add FILE: copies it to the same path in the guest, without debugging symbols, and with its libraries.
add() {
  mkdir -p "$root$(dirname "$1")"
  [ -e "$root$1" ] || objcopy --strip-debug "$1" "$root$1"
  ldd "$1" | grep -oE '/[^ )]+' | while read -r library; do
    mkdir -p "$root$(dirname "$library")"
    cp -nL "$library" "$root$library"
  done
}

# boot KERNEL NAME QEMU-OPTIONS… < COMMANDS: runs the commands in a guest; succeeds if all of them do.
boot() {
  local kernel=$1 log=$run/$1-$2.log
  shift 2
  root=$(mktemp -d "$run/root.XXXXXX")
  mkdir -p "$root"/{bin,dev,proc,scratch,sys,tmp}
  cp /bin/busybox "$root/bin/"
  for applet in sh mount insmod ip cat poweroff uname mkdir sed true; do ln -s busybox "$root/bin/$applet"; done
  cp -r "$cache/$kernel/modules" "$root/modules"
  for file in "${executables[@]}"; do add "$file"; done
  {
    cat <<'INIT'
#!/bin/sh
mount -t proc none /proc; mount -t sysfs none /sys; mount -t devtmpfs none /dev; mount -t tmpfs none /scratch
ip link set lo up
while read -r module; do insmod /modules/$module; done < /modules/order
echo "kernel $(uname -r), ULPs: $(cat /proc/sys/net/ipv4/tcp_available_ulp)"
# Not /tmp: a working tree there has its programs at the same path.
export TMPDIR=/scratch HOME=/scratch RUST_BACKTRACE=1 GATE_REQUIRE_KTLS=1
cd /scratch
status=0
INIT
    sed 's/$/ || status=1/'
    # Warnings of the kernel are failures too.
    cat <<'INIT'
dmesg=$(busybox dmesg | sed -n '/WARNING:\|BUG:\|Oops/p')
[ -z "$dmesg" ] || { echo "$dmesg"; status=1; }
echo "VM-RESULT $status"
poweroff -f
INIT
  } > "$root/init"
  chmod +x "$root/init"
  # A test starts a gate as another user.
  chmod 755 "$root"
  (cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) > "$root.img"
  rm -rf "$root"
  # On a busy host, the emulated timer is too slow for the kernel's test of it.
  timeout "${VM_TIMEOUT:-900}" qemu-system-x86_64 -M q35 "$@" -m 1024 -nodefaults -no-user-config -display none \
    -serial stdio -no-reboot -kernel "$cache/$kernel/vmlinuz" -initrd "$root.img" \
    -append "console=ttyS0 panic=-1 quiet no_timer_check" </dev/null | tr -d '\r' | tee "$log" || true
  rm -f "$root.img"
  grep -q '^VM-RESULT 0$' "$log" || { echo "failed in $kernel: $log"; return 1; }
}

# built CARGO-OPTIONS…: builds tests and prints each executable once, including the program if the tests run it.
built() {
  cargo test --locked --no-run "$@" --message-format=json-render-diagnostics |
    grep -o '"executable":"[^"]*"' | cut -d'"' -f4 | awk '!seen[$0]++'
}

# Prints one of the executables by the start of its file name.
executable() { printf '%s\n' "${executables[@]}" | grep "/deps/$1-"; }

functional() {
  mapfile -t executables < <(built --lib --test vm --test sandbox)
  [ "${#executables[@]}" -eq 4 ] || { echo "built ${executables[*]}"; return 1; }
  executables+=(/usr/bin/unshare)
  local failed=0 pair
  # Each guest has two emulated processors, so two guests run at a time.
  for ((pair = 0; pair < ${#kernels[@]}; pair += 2)); do
    functional_at_once "${kernels[@]:pair:2}" || failed=1
  done
  return "$failed"
}

# The version of Landlock's interface that a kernel has at least.
landlock_of() {
  case $1 in
    6.1) echo 2 ;;
    6.12) echo 6 ;;
    newest) echo 7 ;;
  esac
}

functional_at_once() {
  local running=() failed=0 kernel
  for kernel in "$@"; do
    boot "$kernel" functional -accel tcg,thread=multi -cpu max -smp 2 > "$run/$kernel.out" 2>&1 <<EOF_COMMANDS &
$(executable doorward) ${VM_TESTS:-sys:: relay::kernel relay::raw handshake::}
$(executable vm) ${VM_TESTS:-}
DOORWARD_REQUIRE_LANDLOCK=$(landlock_of "$kernel") $(executable sandbox) ${VM_TESTS:-}
EOF_COMMANDS
    running+=("$!")
  done
  for kernel in "$@"; do
    printf -- '-- kernel %s: functional\n' "$kernel"
    wait "${running[0]}" || failed=1
    running=("${running[@]:1}")
    cat "$run/$kernel.out"
  done
  return "$failed"
}

# An instruction is one nanosecond of the guest's clock, so the counts do not depend on the load of the host.
# String instructions are disabled, because the emulator would count a whole copy as one.
cost() {
  mapfile -t executables < <(built --release --test vm)
  [ "${#executables[@]}" -eq 2 ] || { echo "built ${executables[*]}"; return 1; }
  for kernel in "${kernels[@]}"; do
    printf -- '-- kernel %s: cost\n' "$kernel"
    boot "$kernel" cost -icount shift=0,align=off,sleep=off -accel tcg -cpu max,-erms,-fsrm -smp 1 <<EOF_COMMANDS
DOORWARD_VM_KERNEL=$kernel $(executable vm) --ignored --exact cost::instructions_per_byte_stay_below_their_limits --nocapture
EOF_COMMANDS
  done
}

# Not part of everything: a guest with Samba, which is large.
cifs() {
  mapfile -t executables < <(built --test vm)
  [ "${#executables[@]}" -eq 2 ] || { echo "built ${executables[*]}"; return 1; }
  # Samba loads what it needs from a folder of its own.
  local samba=/usr/lib/x86_64-linux-gnu/samba
  executables+=(/usr/sbin/smbd /usr/bin/pdbedit /usr/bin/mount /usr/bin/umount /usr/sbin/mount.cifs "$samba"/auth/*.so)
  local kernel failed=0
  for kernel in "${kernels[@]}"; do
    printf -- '-- kernel %s: cifs\n' "$kernel"
    boot "$kernel" cifs -accel tcg,thread=multi -cpu max -smp 2 <<EOF_COMMANDS || failed=1
for module in \$(cat /modules/order.cifs); do insmod /modules/\$module 2>/dev/null; done; mkdir -p /etc /sbin /var/log/samba /run/samba /mnt
busybox ln -s /usr/sbin/mount.cifs /sbin/
echo root:x:0:0::/scratch:/bin/sh > /etc/passwd; echo nobody:x:65534:65534::/:/bin/sh >> /etc/passwd
echo root:x:0: > /etc/group; echo nogroup:x:65534: >> /etc/group
$(executable vm) --ignored --exact mounted::share_is_mounted_with_the_line_of_forward --nocapture
EOF_COMMANDS
  done
  return "$failed"
}

. tests/vm/systemd/run.sh

kernels=("$@")
if [ $# -eq 0 ]; then
  kernels=(6.1 6.12 newest)
  # Without a cost limit, because this kernel changes every few weeks.
  [[ "${VM_ONLY:-}" != @(cost|cifs) ]] || kernels=(6.1 6.12)
  [[ "${VM_ONLY:-}" != @(systemd|package) ]] || kernels=(6.12)
fi
for kernel in "${kernels[@]}"; do once fetch_kernel "$kernel"; done
case ${VM_ONLY:-} in
  '') functional; kernels=(6.1 6.12); cost; systemd ;;
  functional | cost | cifs | systemd | package) "$VM_ONLY" ;;
  *) echo "VM_ONLY is functional, cost, cifs, systemd or package" >&2; exit 2 ;;
esac
