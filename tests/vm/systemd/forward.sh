# A test of guest.sh: the local ports of a device, as a service of its user.

# as_user COMMAND…: as alice, with the manager of her services.
as_user() { as_alice env XDG_RUNTIME_DIR="/run/user/$(id -u alice)" HOME=/home/alice "$@"; }
# The manager of her services, as at a login. logind, which would start it, needs a package that is not here.
alice_logs_in() {
  local folder
  folder=/run/user/$(id -u alice)
  install -d -m 700 -o alice -g alice /run/user "$folder"
  chmod 755 /run/user
  systemd-run --quiet --unit=alice --uid=alice --property=Delegate=yes --property=Type=notify --property=KillMode=mixed \
    --setenv=XDG_RUNTIME_DIR="$folder" --setenv=HOME=/home/alice /usr/lib/systemd/systemd --user
}
alice_logs_out() { systemctl stop alice; }
forwarding() { as_user systemctl --user show doorward-forward --property="$1" --value; }
page_is_forwarded() { [ "$(curl --silent --max-time 10 http://127.0.0.1:8080/)" = "the page" ]; }

forward_is_a_service_of_the_user() {
  local homes=/home/alice/.config/doorward/homes pid
  as_user sh -c 'cd ~/doorward && /home/doorward ca device alice-desk --folder pki --config doorward.toml --format json' > /run/device
  jq -r .password /run/device | as_user sh -c 'cat > ~/password'
  as_user sh -c '/home/doorward join ~/doorward/devices/alice-desk.doorward --password-file ~/password'
  # No DNS here knows the home, and the gate has another port.
  sed -i -e '/^address = /d' -e 's/^port = .*/address = "127.0.0.1"\nport = 8443/' "$homes"/*.doorward
  alice_logs_in
  as_user /home/doorward forward nas=8080 --install > /run/commands
  # What it says is what is typed.
  grep -qx 'systemctl --user enable --now doorward-forward' /run/commands
  while read -r line; do as_user sh -c "$line"; done < /run/commands
  [ "$(forwarding ActiveState)" = active ]
  eventually page_is_forwarded
  as_user /home/doorward forward --status | grep -q '^nas on 127.0.0.1:8080: '
  # It starts again after a crash, and not after a stop.
  pid=$(forwarding MainPID)
  kill -KILL "$pid"
  eventually page_is_forwarded
  [ "$(forwarding MainPID)" != "$pid" ]
  as_user systemctl --user stop doorward-forward
  [ "$(forwarding Result)" = success ]
  ! page_is_forwarded
  # With its user, at the next login.
  alice_logs_out
  alice_logs_in
  eventually page_is_forwarded
  as_user systemctl --user disable --now doorward-forward
  alice_logs_out
}
