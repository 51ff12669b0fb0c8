# The tests of guest.sh, and what they do to the service. Each ends at its first command that fails.

backends() {
  mkdir -p /srv/www
  echo -n "the page" > /srv/www/index.html
  systemd-run --quiet --unit=page /busybox httpd -f -p 127.0.0.1:5666 -h /srv/www
  systemd-run --quiet --unit=echo socat TCP-LISTEN:5777,bind=127.0.0.1,reuseaddr,fork EXEC:cat
}

installs_and_starts() {
  as_alice sh -c 'cd && /home/doorward init --domain home.example --route nas=127.0.0.1:5666 --route echo=127.0.0.1:5777 \
    --device alice-phone --device bob-laptop'
  cd /home/alice
  /home/doorward install --dry-run > /run/dry 2>&1
  /home/doorward install > /run/real 2>&1
  cat /run/real
  grep -qx 'run systemctl daemon-reload' /run/real
  grep -qx 'run systemctl enable --now doorward.service: starts now and with the system' /run/real
  diff <(grep -E '^(run|write|create) ' /run/dry) <(grep -E '^(run|write|create) ' /run/real)
  # "enable --now" has waited for READY=1.
  property_is ActiveState active
  property_is SubState running
  property_is UnitFileState enabled
  if has_notify_reload; then property_is Type notify-reload; else property_is Type notify; fi
  property_is WatchdogUSec 1min
  property_is NeedDaemonReload no
  admitted alice-phone
  /home/doorward install 2>&1 | grep -q 'Everything is installed already'
}

# with_log SETTING: the service with this line under [log].
with_log() {
  cp /etc/doorward/doorward.toml /run/without-log.toml
  printf '\n[log]\n%s\n' "$1" >> /etc/doorward/doorward.toml
  systemctl restart doorward
}
without_log() {
  cp /run/without-log.toml /etc/doorward/doorward.toml
  systemctl restart doorward
}

journal_holds_the_log() {
  local pid
  eventually sh -c 'journalctl -u doorward -o cat --no-pager | grep "closed .* route=nas .* certificate=\"alice-phone\""'
  with_log 'format = "json"'
  pid=$(property MainPID)
  admitted alice-phone
  eventually sh -c "journalctl _PID=$pid -o cat --no-pager | jq -e 'select(.event == \"closed\" and .route == \"nas\")'"
  journalctl _PID="$pid" -o cat --no-pager | jq -es 'all(.[]; has("event"))'
  without_log
  with_log 'output = "journald"'
  admitted alice-phone
  eventually sh -c 'journalctl -u doorward DOORWARD_CERTIFICATE_NAME=alice-phone -o cat --no-pager | grep .'
  without_log
}

status_line_shows_sessions() {
  property_has StatusText "0 open connections"
  open_session alice-phone
  eventually property_has StatusText "1 open connection"
  systemctl status doorward --no-pager | grep -q 'Status: "1 open connection'
  close_session
  eventually property_has StatusText "0 open connections"
}

# hold THREAD…: stops these threads at their next system call; the tracer that would resume them is stopped. SIGCONT, which
# systemd sends with the signal of a reload, does not.
hold() {
  rm -f /run/trace
  # shellcheck disable=SC2046
  strace --quiet=all -o /run/trace $(printf -- '-p %s ' "$@") &
  echo $! > /run/tracer
  eventually test -s /run/trace
  kill -STOP "$(cat /run/tracer)"
}
# The end of the tracer lets them go on.
release() { kill -KILL "$(cat /run/tracer)"; }

reload_returns_when_the_configuration_is_in_force() {
  local pid fingerprint reload
  pid=$(property MainPID)
  admitted bob-laptop
  fingerprint=$(as_alice doorward ca inspect /home/alice/doorward/devices/bob-laptop.pem --format json |
    jq -r '.. | .fingerprint? // empty' | head -1)
  [ -n "$fingerprint" ]
  # shellcheck disable=SC2046
  hold $(ls "/proc/$pid/task")
  sed -i "s|^deny = \[|deny = [\n\"$fingerprint\",|" /etc/doorward/doorward.toml
  systemctl reload doorward &
  reload=$!
  eventually property_is ActiveState reloading
  sleep 2
  property_is ActiveState reloading
  kill -0 "$reload"
  release
  wait "$reload"
  refused bob-laptop
  admitted alice-phone
  property_is ActiveState active
  property_is MainPID "$pid"
  sed -i "/^\"$fingerprint\",/d" /etc/doorward/doorward.toml
  systemctl reload doorward
  admitted bob-laptop
}

# Its configuration has no control socket: the signal is enough.
reload_works_without_a_control_socket() {
  local pid
  sed -i 's/^socket = "auto"/socket = "off"/' /etc/doorward/doorward.toml
  systemctl restart doorward
  pid=$(property MainPID)
  sed -i 's/^socket = "off"/socket = "auto"/' /etc/doorward/doorward.toml
  systemctl reload doorward
  eventually sh -c "journalctl _PID=$pid -o cat --no-pager | grep -F 'reloaded (signal)'"
  property_is MainPID "$pid"
  systemctl restart doorward
}

mistake_is_refused_and_in_the_status() {
  cp /etc/doorward/doorward.toml /run/good.toml
  echo 'nonsense = 1' >> /etc/doorward/doorward.toml
  ! systemctl reload doorward
  eventually property_has StatusText "the latest reload was refused, see doorward status"
  admitted alice-phone
  cp /run/good.toml /etc/doorward/doorward.toml
  systemctl reload doorward
  eventually property_is StatusText "0 open connections"
}

exposure_is_low() {
  systemd-analyze security --no-pager doorward.service > /run/security || true
  tail -1 /run/security
  awk '/Overall exposure level/ { for (at = 1; at <= NF; at++) if ($at ~ /^[0-9.]+$/) exit !($at <= 1.2) }' /run/security
  systemd-analyze security --no-pager --threshold=12 doorward.service > /dev/null
}

revocation_by_the_owner_holds_after_a_restart() {
  admitted bob-laptop
  as_alice doorward ca revoke bob-laptop 2>&1 | tee /run/revoked
  grep -q 'The gate has applied the change' /run/revoked
  touch /var/lib/guest-revoked
  refused bob-laptop
  systemctl restart doorward
  refused bob-laptop
  admitted alice-phone
  as_alice doorward why | grep -q "bob-laptop's certificate was revoked"
}

stop_drains() {
  open_session alice-phone
  eventually property_has StatusText "1 open connection"
  systemctl stop doorward &
  local stop=$!
  eventually property_is ActiveState deactivating
  eventually property_has StatusText "stopping"
  ! (: < /dev/tcp/127.0.0.1/8443)
  say still-there
  kill -0 "$stop"
  close_session
  wait "$stop"
  property_is ActiveState inactive
  property_is Result success
  property_is ExecMainStatus 0
  systemctl start doorward
  admitted alice-phone
}

# systemd follows the new main process, and the session stays with the old one.
new_program_takes_over() {
  local pid restarts
  pid=$(property MainPID)
  restarts=$(property NRestarts)
  cp /home/doorward /home/next
  echo next >> /home/next
  open_session alice-phone
  cd /home/alice
  /home/next install 2>&1 | tee /run/output
  grep -q '^run doorward upgrade --config /etc/doorward/doorward.toml: ' /run/output
  ! grep -q 'systemctl restart' /run/output
  # timeouts.drain is 30 s.
  say still-there
  [ -d "/proc/$pid" ]
  close_session
  [ "$(property MainPID)" != "$pid" ]
  property_is ActiveState active
  property_is NRestarts "$restarts"
  cmp "/proc/$(property MainPID)/exe" /home/next
  admitted alice-phone
  /home/next install 2>&1 | grep -q 'Everything is installed already'
  eventually test ! -d "/proc/$pid"
  systemctl reload doorward
  admitted alice-phone
}

with_drop_in() {
  mkdir -p /etc/systemd/system/doorward.service.d
  cat > /etc/systemd/system/doorward.service.d/test.conf
  systemctl daemon-reload
}
without_drop_in() {
  rm /etc/systemd/system/doorward.service.d/test.conf
  systemctl daemon-reload
}

# stuck COMMAND…: it makes the gate stuck, whose process is its last argument, and systemd starts another one.
stuck() {
  local pid restarts begin
  pid=$(property MainPID)
  restarts=$(property NRestarts)
  begin=$(date '+%F %T')
  "$@" "$pid"
  eventually sh -c "journalctl -u doorward -o cat --no-pager --since='$begin' | grep 'Watchdog timeout'"
  # The kernel reports the end of a process only when its tracer has gone.
  [ "$1" != hold_runtime ] || release
  eventually property_is NRestarts $((restarts + 1))
  eventually property_is ActiveState active
  [ "$(property MainPID)" != "$pid" ]
  admitted alice-phone
}
# The threads of the runtime, and no other one.
hold_runtime() {
  local threads
  # Threads that are idle for a while end meanwhile.
  threads=$(grep -ls '^tokio-' "/proc/$1/task"/*/comm | cut -d/ -f5) || true
  [ -n "$threads" ]
  # shellcheck disable=SC2086
  hold $threads
}

watchdog_ends_a_stuck_gate() {
  with_drop_in <<'UNIT'
[Service]
WatchdogSec=5s
UNIT
  systemctl restart doorward
  property_is WatchdogUSec 5s
  # It is fed in time.
  sleep 8
  property_is NRestarts 0
  stuck kill -STOP
  stuck hold_runtime
  without_drop_in
  systemctl restart doorward
}

# A manager whose socket is not a file, as some containers have it.
abstract_notify_socket_is_reached() {
  with_drop_in <<'UNIT'
[Service]
Type=exec
NotifyAccess=none
WatchdogSec=0
ExecStart=
ExecStart=/usr/bin/env NOTIFY_SOCKET=@manager/of/test /usr/local/bin/doorward run --config /etc/doorward/doorward.toml
UNIT
  timeout 60 socat -u ABSTRACT-RECV:manager/of/test,socktype=2 OPEN:/run/messages,creat,append &
  local manager=$!
  eventually grep -q '@manager/of/test' /proc/net/unix
  systemctl restart doorward
  eventually grep -qx 'READY=1' /run/messages
  eventually grep -qx 'STATUS=0 open connections' /run/messages
  systemctl stop doorward
  eventually grep -qx 'STOPPING=1' /run/messages
  kill "$manager"
  without_drop_in
  systemctl start doorward
}

# Asks for the page until /run/enough exists. A client that is in its handshake when the gate stops is told so (curl: 35, 55, 56);
# any other failure, above all a refused connection (7), is one of the test.
requests() {
  local made=0 code
  while [ ! -e /run/enough ]; do
    code=0
    page alice-phone > /run/request 2>&1 || code=$?
    case $code in
      0) made=$((made + 1)) && echo "$made" > /run/made ;;
      35 | 55 | 56) echo "interrupted: $(cat /run/request)" ;;
      *) echo "$code: $(cat /run/request)" >> /run/request-errors ;;
    esac
  done
}

socket_activation_refuses_no_connection() {
  systemctl stop doorward
  cat > /etc/systemd/system/doorward.socket <<'UNIT'
[Socket]
ListenStream=[::]:8443
BindIPv6Only=both
FileDescriptorName=public

[Install]
WantedBy=sockets.target
UNIT
  systemctl daemon-reload
  systemctl enable --quiet --now doorward.socket
  property_is ActiveState inactive
  # A connection starts it.
  admitted alice-phone
  property_is ActiveState active
  tr '\0' '\n' < "/proc/$(property MainPID)/environ" | grep -E '^(LISTEN_|NOTIFY_|WATCHDOG_)'
  rm -f /run/enough /run/request-errors /run/made
  requests &
  local requests=$! before
  for restart in 1 2 3; do
    eventually test -e /run/made
    before=$(property MainPID)
    systemctl restart doorward
    [ "$(property MainPID)" != "$before" ]
    rm -f /run/made
  done
  eventually test -e /run/made
  touch /run/enough
  wait "$requests"
  [ ! -e /run/request-errors ] || { cat /run/request-errors; return 1; }
  # A socket of another name keeps the gate from starting, and it says so.
  systemctl stop doorward.socket doorward.service
  sed -i 's/=public/=other/' /etc/systemd/system/doorward.socket
  systemctl daemon-reload
  systemctl start doorward.socket
  ! systemctl start doorward
  journalctl -u doorward -o cat --no-pager | tail -5 | grep -q 'no listener has this name'
  systemctl reset-failed doorward
  systemctl disable --quiet --now doorward.socket
  rm /etc/systemd/system/doorward.socket
  systemctl daemon-reload
  systemctl start doorward
}

# Not even the gate's user reads the file; the service has what systemd has read. The owner's commands work all the same.
key_is_handed_over_by_systemd() {
  local key=/etc/doorward/credentials/server-key.pem output
  cd /home/alice
  /home/doorward install --load-credential 2>&1 | tee /run/output
  grep -q 'run systemctl restart doorward.service' /run/output
  [ "$(stat -c '%U %a' "$key")" = "root 600" ]
  [ ! -e /etc/doorward/pki/server-key.pem ]
  ! runuser -u doorward -- cat "$key" > /dev/null
  admitted alice-phone
  # In the unit, after an upgrade, as root, and as the owner.
  systemctl reload doorward
  doorward upgrade
  admitted alice-phone
  doorward check
  as_alice doorward check
  as_alice doorward ca device carol-phone
  admitted carol-phone
  as_alice doorward ca revoke carol-phone
  refused carol-phone
  as_alice doorward ca server
  admitted alice-phone
  # A new key: systemd hands it over to a new process.
  output=$(as_alice doorward ca server --new-key 2>&1) && return 1
  [[ "$output" == *"sudo doorward install"* ]]
  /home/doorward install 2>&1 | grep -q 'run systemctl restart doorward.service'
  cmp "$key" /home/alice/doorward/pki/server-key.pem
  admitted alice-phone
  /home/doorward install 2>&1 | grep -q 'Everything is installed already'
}

encrypted_credential_works_the_same() {
  local key=/etc/doorward/credentials/server-key.pem
  mkdir -p /etc/credstore.encrypted
  systemd-creds encrypt --with-key=host --name=server-key.pem "$key" /etc/credstore.encrypted/gate
  mv "$key" /run/kept
  with_drop_in <<'UNIT'
[Service]
LoadCredential=
LoadCredentialEncrypted=server-key.pem:/etc/credstore.encrypted/gate
UNIT
  systemctl restart doorward
  admitted alice-phone
  doorward check
  mv /run/kept "$key"
  without_drop_in
  systemctl restart doorward
}

low_port_gets_its_capability() {
  cat >> /etc/doorward/doorward.toml <<'TOML'

[[listener]]
name = "https"
address = "127.0.0.1:443"
TOML
  doorward install 2>&1 | tee /run/output
  grep -q 'write /etc/systemd/system/doorward.service.d/install.conf\|replace /etc/systemd/system/doorward.service.d/install.conf' \
    /run/output
  : < /dev/tcp/127.0.0.1/443
  admitted alice-phone
  systemd-analyze security --no-pager doorward.service | tail -1
  sed -i '/^name = "https"/,$d' /etc/doorward/doorward.toml
  sed -i '$d' /etc/doorward/doorward.toml
  doorward install
  ! (: < /dev/tcp/127.0.0.1/443)
  ! grep -q Ambient /etc/systemd/system/doorward.service.d/install.conf
}

kernel_module_is_loaded_now_and_at_boot() {
  [ ! -e /sys/module/tls ]
  sed -i '1i kernel_tls = "require"' /etc/doorward/doorward.toml
  doorward install 2>&1 | tee /run/output
  grep -q "run modprobe tls" /run/output
  [ -e /sys/module/tls ]
  systemctl restart doorward
  admitted alice-phone
  journalctl -u doorward -o cat --no-pager | grep -q 'path=kernel'
}

# With VM_TESTS, the test that revokes it may not have run.
revoked_stays_out() { [ ! -e /var/lib/guest-revoked ] || refused bob-laptop; }

starts_with_the_machine() {
  property_is ActiveState active
  property_is NRestarts 0
  admitted alice-phone
  revoked_stays_out
  ! grep -q '^kernel_tls' /etc/doorward/doorward.toml || [ -e /sys/module/tls ]
}

no_unit_is_left() {
  local files units
  files=$(systemctl list-unit-files --no-legend 'doorward*') || true
  units=$(systemctl list-units --all --no-legend 'doorward*') || true
  echo "unit files: $files, units: $units"
  find /etc/systemd /usr/lib/systemd /run/systemd -name '*doorward*'
  [ -z "$files$units" ]
  [ -z "$(find /etc/systemd /usr/lib/systemd -name '*doorward*')" ]
}

uninstall_leaves_no_unit() {
  doorward install --uninstall 2>&1 | tee /run/removed
  grep -qx 'run systemctl disable --now doorward.service: ends the gate' /run/removed
  no_unit_is_left
  ! pgrep -x doorward
  # The configuration stays, and another installation has it again.
  (cd /home/alice && /home/doorward install)
  admitted alice-phone
  revoked_stays_out
  doorward install --uninstall --purge
  no_unit_is_left
  [ -z "$(find /etc /usr /run /var/lib -xdev -name '*doorward*' -not -path '/var/lib/systemd/*')" ]
  ! getent passwd doorward
  ! getent group doorward
}
