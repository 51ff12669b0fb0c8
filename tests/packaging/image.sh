# The container image, run by podman and runc as a user would run it: read-only, without privileges, with mounted files.
# shellcheck shell=bash

archive=$(ls "$out"/doorward-*-image.tar)
user=23456:23456
# A short path, wherever the source is: podman wants less than 50 characters. Only these namespaces see the mount.
store=/mnt
mount -t tmpfs tmpfs "$store"
# The limits that this machine allows; podman asks for more.
limits="--ulimit nofile=$(ulimit -Hn):$(ulimit -Hn) --ulimit nproc=1000:1000"
podman() { command podman --root "$store/root" --runroot "$store/run" --storage-driver vfs --runtime runc --cgroup-manager cgroupfs "$@"; }

check "image is loaded" podman load --quiet --input "$archive"
image=$(podman images --format '{{.Repository}}:{{.Tag}}')
tree=$store/tree
mkdir "$tree"
podman save --quiet --format docker-dir --output "$store/saved" "$image"
for layer in "$store"/saved/*; do tar -C "$tree" -xf "$layer" 2>/dev/null || true; done
same "image holds the program and the licences, and nothing else" "LICENSE-APACHE LICENSE-MIT doorward third-party.gz" \
  "$(cd "$tree" && find . -type f -printf '%P\n' | LC_ALL=C sort | tr '\n' ' ' | sed 's/ $//')"

backend

# The command line is that of the image as well: no other program is needed on the machine.
home=$store/home
mkdir "$home"
chown "$user" "$home"
doorward() {
  # shellcheck disable=SC2086
  podman run --rm --network host $limits --read-only --cap-drop all --security-opt no-new-privileges --user "$user" \
    --volume "$home:$home" --workdir "$home" ${socket:+--volume "$socket:/run/doorward"} "$image" "$@"
}
admitted() {
  (cd "$home" && curl --silent --show-error --max-time 10 --cert "doorward/devices/$1.pem" --key "doorward/devices/$1-key.pem" \
    --cacert doorward/pki/server-ca.pem --resolve nas.home.example:8443:127.0.0.1 https://nas.home.example:8443/) | grep -q 'web page'
}
# gate MOUNTS…: starts it.
gate() {
  local mounts=() mount
  for mount in "$@"; do mounts+=(--volume "$mount"); done
  # shellcheck disable=SC2086
  podman run --detach --name gate --network host $limits --read-only --cap-drop all --security-opt no-new-privileges \
    --user "$user" "${mounts[@]}" "$image" > "$work/gate" || { cat "$work/gate"; fail "gate"; }
  until_true "the gate is ready" ready
}
ready() { podman logs gate 2>&1 | grep -q ' ready$'; }
draining() { podman logs gate 2>&1 | grep -q ' draining'; }
stopped() { # what it ends with after SIGTERM
  podman stop --time 20 gate >/dev/null
  podman inspect --format '{{.State.ExitCode}}' gate
  podman rm gate >/dev/null
}
socket=""
doorward init --domain home.example --route nas=127.0.0.1:5666 --device alice-phone --device bob-laptop --device carol-phone \
  > "$work/said" 2>&1 || { cat "$work/said"; fail "init"; }
socket=$home/doorward/run
mkdir "$socket" "$home/doorward/state"
chown "$user" "$socket" "$home/doorward/state"

# A mounted folder, as compose.yaml has it. The keys of the authorities in it are hidden from the gate.
mapfile -t folder < <(sed -n "s|^ *- /srv/doorward\(/.*:.*\)|$home/doorward\1|p; s|^ *- \(/dev/null:.*\)|\1|p" "$repository/deploy/compose.yaml")
same "compose.yaml has six mounts" 6 "${#folder[@]}"
gate "${folder[@]}"
pid=$(podman inspect --format '{{.State.Pid}}' gate)
same "program is process 1, of the user, without privileges, sealed" \
  "Uid 23456 NSpid 1 CapEff 0000000000000000 NoNewPrivs 1 Seccomp 2" \
  "Uid $(awk '/^Uid/ { print $2 }' "/proc/$pid/status") NSpid $(awk '/^NSpid/ { print $NF }' "/proc/$pid/status") CapEff $(awk '/^CapEff/ { print $2 }' "/proc/$pid/status") NoNewPrivs $(awk '/^NoNewPrivs/ { print $2 }' "/proc/$pid/status") Seccomp $(awk '/^Seccomp:/ { print $2 }' "/proc/$pid/status")"
check "root of the file system is read-only" grep -qE '^[^ ]+ / [^ ]+ ro,' "/proc/$pid/mounts"
same "gate does not see the keys of the authorities" "0 0" \
  "$(wc -c < "/proc/$pid/root/etc/doorward/pki/clients-key.pem") $(wc -c < "/proc/$pid/root/etc/doorward/pki/server-ca-key.pem")"
check "device is admitted" admitted alice-phone
check "status, by the control socket" doorward status
refuse "nothing is wrong with the history" grep -q history <(podman logs gate 2>&1; doorward status)
coproc session { python3 "$repository/tests/packaging/peer.py" session 8443 "$home/doorward" alice-phone; }
say() { echo "$1" >&"${session[1]}"; read -r -t 20 answer <&"${session[0]}" || answer="no answer"; echo "$answer"; }
same "session is open" "before" "$(say before)"
doorward ca revoke alice-phone > "$work/said" 2>&1 || { cat "$work/said"; fail "revocation, mounted folder"; }
check "revocation is in force" grep -q 'The gate has applied the change' "$work/said"
same "session of the revoked device is cut" "closed" "$(say after)"
exec {session[1]}>&-
wait "$session_PID" || true
refuse "revoked device stays out" admitted alice-phone
check "other device is admitted" admitted bob-laptop
same "SIGTERM ends it with 0" 0 "$(stopped)"
check "history is in the mounted folder" test -n "$(find "$home/doorward/state/history" -type f -size +0 -user 23456 -name '20*')"
gate "${folder[@]}"
doorward history > "$work/said"
check "history goes on after a restart" grep -q '^alice-phone ' "$work/said"
refuse "revoked device stays out after a restart" admitted alice-phone
same "SIGTERM ends it with 0 again" 0 "$(stopped)"

# Mounts of single files: a file that is replaced is not seen, and the list gets to the gate over its control socket.
single=("$socket:/run/doorward")
for file in doorward.toml pki/server.pem pki/server-key.pem pki/clients.pem pki/clients.crl; do
  single+=("$home/doorward/$file:/etc/doorward/$file:ro")
done
gate "${single[@]}"
check "device is admitted, single files" admitted bob-laptop
# Nothing is mounted for the history.
warned() { podman logs gate 2>&1 | grep -c 'cannot make the folder /var/lib/doorward/history'; }
check "missing folder of the history is told, with the remedy" grep -q 'in a container, mount a folder' <(podman logs gate 2>&1)
sleep 11 # Twice the interval in which the gate looks.
same "missing folder of the history is told once" 1 "$(warned)"
check "status says so as well" grep -q '^The history has not been written since\|^  The history has not been written since' <(doorward status)
doorward history > "$work/said"
check "history is in memory" grep -q '^bob-laptop ' "$work/said"
code=0
doorward ca revoke bob-laptop > "$work/said" 2>&1 || code=$?
refuse "revoked device stays out, single files" admitted bob-laptop
check "other device is admitted, single files" admitted carol-phone
same "revocation says that the gate's file is the old one, single files" 10 "$code"
same "SIGTERM ends it with 0, single files" 0 "$(stopped)"
gate "${single[@]}"
refuse "revoked device stays out after a restart, single files" admitted bob-laptop
check "other device is admitted after a restart, single files" admitted carol-phone

# A drain: an open session has its time, and is cut after it.
coproc session { python3 "$repository/tests/packaging/peer.py" session 8443 "$home/doorward" carol-phone; }
same "session is open before the drain" "before" "$(say before)"
podman kill --signal TERM gate >/dev/null
until_true "the gate drains" draining
same "session goes on while the gate drains" "meanwhile" "$(say meanwhile)"
exec {session[1]}>&-
ended() { [ "$(podman inspect --format '{{.State.Running}}' gate)" = false ]; }
until_true "the gate has ended" ended
same "drained gate ends with 0" 0 "$(podman inspect --format '{{.State.ExitCode}}' gate)"
