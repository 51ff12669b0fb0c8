# Part of tests/vm/run.sh: machines with Debian's systemd as init, in which guest.sh installs the gate as its service.
#
# Debian 13 has the type notify-reload. Debian 12 has not: there the same unit is of the type notify.

# Debian's releases. The first machine runs all tests of guest.sh, the second one those that depend on systemd's version.
systemd_suites="${VM_SUITES:-trixie bookworm}"

# Besides systemd: clients, a stuck thread (strace), a reader of an abstract socket (socat), modprobe, what the Debian package needs.
systemd_packages="systemd-sysv,dbus,curl,openssl,strace,socat,jq,kmod,adduser"

# Creates $cache/systemd-$1, the root folder of a machine, unless it is there.
fetch_root() {
  local suite=$1 base=$cache/systemd-$1 new log=$run/systemd-$1-debootstrap.log
  [ "$(cat "$base/packages" 2>/dev/null)" = "$systemd_packages" ] && return
  new=$(mktemp -d "$run/fetch.XXXXXX")
  debootstrap --variant=minbase --include="$systemd_packages" "$suite" "$new/root" "$(mirror)" > "$log" 2>&1 ||
    { tail "$log"; return 1; }
  rm -rf "$new/root/var/cache/apt" "$new/root/var/lib/apt/lists" "$new/root/usr/share/doc" "$new/root/usr/share/locale"
  chroot "$new/root" useradd --create-home alice
  systemctl --root="$new/root" mask --quiet getty@tty1.service serial-getty@ttyS0.service
  # Here, and not in guest.sh: the unit is started by the first boot.
  cat > "$new/root/etc/systemd/system/guest.service" <<'UNIT'
[Unit]
Description=The tests
After=multi-user.target

[Service]
Type=oneshot
ExecStart=/guest.sh
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS0

[Install]
WantedBy=multi-user.target
UNIT
  systemctl --root="$new/root" enable --quiet guest.service
  echo "$systemd_packages" > "$new/packages"
  rm -rf "$base"
  mv "$new" "$base"
}

# boot_disk KERNEL DISK LOG: boots once; returns when the machine is off or boots again. On a busy host, the kernel's check of the
# timer of an emulated machine fails, and it panics: no_timer_check.
# One processor: while the kernel patches its own code at boot, another one that QEMU emulates may run into the breakpoint that it
# sets meanwhile ("Oops: int3").
boot_disk() {
  timeout "${VM_TIMEOUT:-1800}" qemu-system-x86_64 -M q35 -accel tcg -cpu max -smp 1 -m 1024 \
    -nodefaults -no-user-config -display none -serial stdio -no-reboot -kernel "$cache/$1/vmlinuz" -initrd "$2.initrd" \
    -drive "file=$2,if=virtio,format=raw,cache=unsafe" \
    -append "console=ttyS0 panic=-1 quiet no_timer_check systemd.show_status=no systemd.log_target=journal-or-kmsg systemd.log_color=0 \
      guest.tests=$(tr ' ' , <<< "${VM_TESTS:-}")" </dev/null | sed -u 's/\r//g' |
    tee -a "$3" || true
}

# An initial system that mounts the disk.
disk_initrd() {
  local root
  root=$(mktemp -d "$run/root.XXXXXX")
  mkdir -p "$root"/{bin,dev,proc,disk}
  cp /bin/busybox "$root/bin/"
  cp -r "$cache/$1/modules" "$root/modules"
  cat > "$root/init" <<'INIT'
#!/bin/busybox sh
busybox mount -t devtmpfs none /dev
while read -r module; do busybox insmod /modules/$module; done < /modules/order.disk
until busybox mount -t ext4 /dev/vda /disk 2>/dev/null; do busybox sleep 0.1; done
exec busybox switch_root /disk /sbin/init
INIT
  chmod +x "$root/init"
  (cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) > "$2"
  rm -rf "$root"
}

# disk_of KERNEL SUITE DISK: makes a disk of the root folder, with the program or the packages, and the tests.
disk_of() {
  local base=$cache/systemd-$2 version
  install -m 755 tests/vm/systemd/{guest,tests,forward,package}.sh /bin/busybox "$base/root/"
  rm -rf "$base/root/usr/lib/modules"
  version=$(modinfo -F vermagic "$cache/$1/modules/tls.ko" | cut -d' ' -f1)
  mkdir -p "$base/root/usr/lib/modules/$version"
  cp "$cache/$1/modules"/*.ko "$base/root/usr/lib/modules/$version"
  touch "$base/root/usr/lib/modules/$version"/modules.{order,builtin,builtin.modinfo}
  depmod -b "$base/root" "$version"
  rm -f "$base/root/home/doorward" "$base"/root/*.deb
  if [ -n "$program" ]; then
    objcopy --strip-debug "$program" "$base/root/home/doorward"
  else
    local packages=${PACKAGING_OUT:-target/packages}
    cp "$packages"/doorward_*.deb "$base/root/doorward.deb"
    cp "$packages"/upgrade/doorward_*.deb "$base/root/upgrade.deb"
  fi
  mkfs.ext4 -qq -E nodiscard,lazy_itable_init=1 -d "$base/root" "$3" 1500M
}

systemd_machine() { # KERNEL SUITE LOG
  local disk=$run/disk.$2
  once disk_of "$1" "$2" "$disk"
  disk_initrd "$1" "$disk.initrd"
  : > "$3"
  boot_disk "$1" "$disk" "$3"
  # The second boot, of the system that the first one left.
  grep -q '^VM-RESULT' "$3" || [ -z "$program" ] || boot_disk "$1" "$disk" "$3"
  rm -f "$disk" "$disk.initrd"
  grep -q '^VM-RESULT 0$' "$3"
}

systemd() {
  local program=$target/debug/doorward
  cargo build --locked --quiet
  systemd_machines
}

# The packages that packaging/release has built.
package() {
  local program=""
  systemd_machines
}

systemd_machines() {
  local suite failed=0 machines=()
  for suite in $systemd_suites; do once fetch_root "$suite"; done
  # Mostly they wait.
  for suite in $systemd_suites; do
    systemd_machine "${kernels[0]}" "$suite" "$run/systemd-$suite.log" > "$run/systemd-$suite.out" 2>&1 &
    machines+=("$!")
  done
  for suite in $systemd_suites; do
    printf -- '-- systemd of %s\n' "$suite"
    wait "${machines[0]}" || { echo "failed: $run/systemd-$suite.log"; failed=1; }
    machines=("${machines[@]:1}")
    cat "$run/systemd-$suite.out"
  done
  return "$failed"
}
