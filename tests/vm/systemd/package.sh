# The Debian package under systemd: the tests of guest.sh when it finds /doorward.deb, and the same with a later version,
# /upgrade.deb. Without a network, so dpkg and not apt.

# version FILE PATTERN: installs it, and its output has a line with the pattern.
version() {
  dpkg --install "$1" > /run/dpkg 2>&1 || { cat /run/dpkg; return 1; }
  cat /run/dpkg
  [ -z "${2:-}" ] || grep -q "$2" /run/dpkg
}

# The process that accepts connections runs the installed program.
is_current() { [ "$(stat -L -c %d:%i "/proc/$(property MainPID)/exe")" = "$(stat -c %d:%i /usr/bin/doorward)" ]; }

package_starts_nothing_without_a_configuration() {
  version /doorward.deb
  property_is LoadState loaded
  property_is ActiveState inactive
  property_is UnitFileState enabled
  [[ "$(property FragmentPath)" == */lib/systemd/system/doorward.service ]]
  property_is NeedDaemonReload no
  id doorward
  # Installed once more.
  version /doorward.deb
  property_is ActiveState inactive
}

package_is_set_up() {
  as_alice sh -c 'cd && doorward init --domain home.example --route nas=127.0.0.1:5666 --route echo=127.0.0.1:5777 \
    --device alice-phone --device bob-laptop'
  cd /home/alice
  doorward install 2>&1 | tee /run/output
  ! grep -q '/usr/local\|/etc/systemd/system/doorward.service' /run/output
  property_is ActiveState active
  property_is NeedDaemonReload no
  admitted alice-phone
  doorward install 2>&1 | grep -q 'Everything is installed already'
  as_alice doorward ca revoke bob-laptop 2>&1 | grep -q 'The gate has applied the change'
  refused bob-laptop
}

upgrade_keeps_sessions() {
  local pid restarts
  pid=$(property MainPID)
  restarts=$(property NRestarts)
  open_session alice-phone
  version /upgrade.deb 'accepts connections now'
  # timeouts.drain is 30 s.
  say still-there
  close_session
  [ "$(property MainPID)" != "$pid" ]
  is_current
  property_is NRestarts "$restarts"
  property_is ActiveState active
  property_is NeedDaemonReload no
  admitted alice-phone
  refused bob-laptop
  eventually test ! -d "/proc/$pid"
}

upgrade_keeps_sessions_with_credentials() {
  doorward install --load-credential 2>&1 | grep -q 'run systemctl restart doorward.service'
  admitted alice-phone
  open_session alice-phone
  version /doorward.deb 'accepts connections now'
  say still-there
  close_session
  is_current
  admitted alice-phone
}

upgrade_ends_no_gate_that_could_not_start_again() {
  local pid
  pid=$(property MainPID)
  cp /etc/doorward/doorward.toml /run/good.toml
  sed -i '1i mistake = 1' /etc/doorward/doorward.toml
  version /upgrade.deb 'the gate runs on as the version before'
  property_is MainPID "$pid"
  admitted alice-phone
  cp /run/good.toml /etc/doorward/doorward.toml
  # What apt's output did not achieve.
  doorward install 2>&1 | tee /run/output
  grep -q '^run doorward upgrade ' /run/output
  is_current
  admitted alice-phone
}

upgrade_restarts_a_gate_without_a_control_socket() {
  local pid
  # Not with credentials: the check of the new version, as the gate's user, cannot read them.
  doorward install --uninstall > /run/output 2>&1 && return 1
  sed -i 's/^socket = "auto"/socket = "off"/; s|"credential:server-key.pem"|"pki/server-key.pem"|' /etc/doorward/doorward.toml
  install -o doorward -g doorward -m 400 /etc/doorward/credentials/server-key.pem /etc/doorward/pki/server-key.pem
  rm -r /etc/doorward/credentials /etc/systemd/system/doorward.service.d
  systemctl daemon-reload
  systemctl restart doorward
  admitted alice-phone
  pid=$(property MainPID)
  version /doorward.deb
  [ "$(property MainPID)" != "$pid" ]
  property_is ActiveState active
  is_current
  admitted alice-phone
}

disabled_service_stays_disabled() {
  systemctl disable --now doorward
  version /upgrade.deb
  property_is UnitFileState disabled
  systemctl enable --now doorward
  admitted alice-phone
}

removal_keeps_the_configuration() {
  dpkg --remove doorward
  ! pgrep -x doorward
  [ ! -e /usr/bin/doorward ]
  [ -s /etc/doorward/doorward.toml ]
  id doorward
  version /doorward.deb
  property_is ActiveState active
  property_is UnitFileState enabled
  admitted alice-phone
}

purge_leaves_nothing() {
  # What "doorward install" writes for such a configuration.
  sed -i '1i kernel_tls = "auto"' /etc/doorward/doorward.toml
  cat >> /etc/doorward/doorward.toml <<'TOML'

[[listener]]
name = "https"
address = "127.0.0.1:443"
TOML
  (cd /home/alice && doorward install)
  admitted alice-phone
  [ -s /etc/systemd/system/doorward.service.d/install.conf ]
  [ -s /etc/modules-load.d/doorward.conf ]
  dpkg --purge doorward 2>&1 | tee /run/output
  grep -q 'the authorities in /home/alice/doorward/pki are kept' /run/output
  ! pgrep -x doorward
  no_unit_is_left
  find /etc /usr /run /var -xdev -name '*doorward*'
  [ -z "$(find /etc /usr /run /var -xdev -name '*doorward*' -not -path '/var/lib/systemd/*')" ]
  ! getent passwd doorward
  ! getent group doorward
  [ -s /home/alice/doorward/pki/clients-key.pem ]
}
