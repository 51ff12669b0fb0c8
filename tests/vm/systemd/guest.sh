#!/bin/bash
# The tests of the service, as root on a machine whose init is systemd (tests/vm/systemd/run.sh). They build on each other.
# The first boot ends in a reboot, the second one in VM-RESULT.
set -uo pipefail
export LC_ALL=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
cd /root
failed=/var/lib/guest-failed

# test NAME: runs the function, and reports it.
test_case() {
  local begin=$SECONDS
  # Not in a condition, which would disable -e.
  (set -eE; trap 'echo "line $LINENO: $BASH_COMMAND"' ERR; "$1") > /run/output 2>&1
  if [ $? -eq 0 ]; then
    echo "ok $1 ($((SECONDS - begin)) s)"
  else
    echo "FAILED $1"
    tail -40 /run/output
    journalctl -u doorward -o cat -n 20 --no-pager
    echo "$1" >> "$failed"
  fi
}

# eventually COMMAND…: waits until it succeeds.
eventually() {
  local end=$((SECONDS + 60))
  until "$@" > /run/eventually 2>&1; do
    [ "$SECONDS" -lt "$end" ] || { echo "not in time: $*"; cat /run/eventually; return 1; }
    sleep 0.1
  done
}

# Prints a property of the service.
property() { systemctl show doorward --property="$1" --value; }
property_is() { [ "$(property "$1")" = "$2" ]; }
property_has() { [[ "$(property "$1")" == *"$2"* ]]; }

as_alice() { (cd /tmp && runuser -u alice -- "$@"); }

credentials() {
  local devices=/home/alice/doorward/devices
  echo "--cert $devices/$1.pem --key $devices/$1-key.pem --cacert /home/alice/doorward/pki/server-ca.pem"
}

# page DEVICE: the page of the NAS, as this device gets it.
page() {
  # shellcheck disable=SC2046
  curl --silent --show-error --max-time 30 $(credentials "$1") --resolve nas.home.example:8443:127.0.0.1 \
    https://nas.home.example:8443/
}
admitted() { [ "$(page "$1")" = "the page" ]; }
refused() { ! page "$1" > /dev/null 2>&1; }

# open_session DEVICE: one that stays open; say and answered use it.
open_session() {
  local pki=/home/alice/doorward
  rm -f /run/say
  mkfifo /run/say
  openssl s_client -quiet -connect 127.0.0.1:8443 -servername echo.home.example -cert "$pki/devices/$1.pem" \
    -key "$pki/devices/$1-key.pem" -CAfile "$pki/pki/server-ca.pem" < /run/say > /run/answers 2> /run/session-errors &
  session=$!
  exec 7> /run/say
  say hello
}
say() {
  echo "$1" >&7
  eventually grep -qx "$1" /run/answers
}
close_session() {
  kill "$session"
  wait "$session" || true
  exec 7>&-
}

# Debian 12 has systemd 252, which has no notify-reload.
has_notify_reload() { [ "$(systemctl --version | awk 'NR == 1 { print $2 }')" -ge 253 ]; }

. /tests.sh
. /forward.sh

first="installs_and_starts reload_returns_when_the_configuration_is_in_force mistake_is_refused_and_in_the_status exposure_is_low
  revocation_by_the_owner_holds_after_a_restart stop_drains new_program_takes_over key_is_handed_over_by_systemd"
# What does not depend on systemd's version is tested with one.
! has_notify_reload || first="$first journal_holds_the_log status_line_shows_sessions reload_works_without_a_control_socket
  watchdog_ends_a_stuck_gate abstract_notify_socket_is_reached socket_activation_refuses_no_connection
  encrypted_credential_works_the_same low_port_gets_its_capability kernel_module_is_loaded_now_and_at_boot
  forward_is_a_service_of_the_user"
second="starts_with_the_machine uninstall_leaves_no_unit"
# VM_TESTS of tests/vm/run.sh: only these, after the installation.
only=$(sed -n 's/.*guest\.tests=\([^ ]*\).*/\1/p' /proc/cmdline | tr , ' ')
[ -z "$only" ] || first="installs_and_starts $only"

backends
if [ -e /doorward.deb ]; then
  . /package.sh
  echo "$(systemctl --version | head -1), Linux $(uname -r)"
  # In the order of the file.
  for name in $(sed -n 's/^\([a-z_]*\)() {$/\1/p' /package.sh | grep -vx 'version\|is_current'); do test_case "$name"; done
  if [ -s "$failed" ]; then echo "VM-RESULT 1"; else echo "VM-RESULT 0"; fi
  systemctl poweroff
elif [ ! -e /var/lib/guest-second ]; then
  echo "$(systemctl --version | head -1), Linux $(uname -r)"
  for name in $first; do test_case "$name"; done
  touch /var/lib/guest-second
  systemctl reboot
else
  for name in $second; do test_case "$name"; done
  if [ -s "$failed" ]; then echo "VM-RESULT 1"; else echo "VM-RESULT 0"; fi
  systemctl poweroff
fi
