# The Debian package: its contents, and its life in an empty Debian without systemd, from the first installation to the purge.
# shellcheck shell=bash

deb=$(ls "$out"/doorward_*.deb | grep -v dbgsym | grep -v upgrade)
upgrade=$out/upgrade/doorward_9.0-1_amd64.deb
symbols=$(ls "$out"/doorward-dbgsym_*deb)
config=/etc/doorward/doorward.toml

# Contents.
check "lintian finds nothing in the packages" lintian --fail-on error,warning,info,pedantic --display-info --pedantic "$deb" "$symbols"
same "configuration files of the package" "$(printf '%s\n' /etc/init.d/doorward /etc/logrotate.d/doorward)" \
  "$(dpkg-deb --info "$deb" conffiles)"
rm -rf "$work/contents"
dpkg-deb --extract "$deb" "$work/contents"
dpkg-deb --extract "$symbols" "$work/contents"
build_id=$(readelf --notes "$work/contents/usr/bin/doorward" | sed -n 's/.*Build ID: //p')
debug=$work/contents/usr/lib/debug/.build-id/${build_id:0:2}/${build_id:2}.debug
check "symbols are those of the program" test -n "$build_id" -a -s "$debug"
check "symbols have the lines of the source" grep -q debug_line <(readelf --section-headers --wide "$debug" 2>/dev/null)
refuse "program has no symbols of its own" grep -qE '\.(symtab|debug_line) ' <(readelf --section-headers --wide "$work/contents/usr/bin/doorward")
for page in man1/doorward.1 man1/doorward-ca-revoke.1 man7/doorward-setup.7; do
  check "man page $page" gzip --test "$work/contents/usr/share/man/$page.gz"
done
for file in bash-completion/completions/doorward zsh/vendor-completions/_doorward fish/vendor_completions.d/doorward.fish \
  doc/doorward/copyright doc/doorward/changelog.Debian.gz doc/doorward/third-party.gz; do
  check "file $file" test -s "$work/contents/usr/share/$file"
done
unit=$work/contents/usr/lib/systemd/system/doorward.service
# It exits with 0 in spite of keys that it does not know, and only mentions them; systemd before 253 does not know notify-reload.
same "systemd finds no mistake in the unit" "" "$(sed "s|=/usr/bin/doorward|=$work/contents/usr/bin/doorward|" "$unit" > "$work/doorward.service"
  systemd-analyze verify --man=no "$work/doorward.service" 2>&1 | grep -v 'Failed to parse service type, ignoring: notify-reload')"
same "version is that of the changelog" "$(dpkg-parsechangelog -l "$repository/packaging/debian/changelog" -S Version)" \
  "$(dpkg-deb --field "$deb" Version)"

# Installation, in an empty Debian.
copy_of bookworm
cp "$deb" "$upgrade" "$root/root/"
backend

files() { # all but what dpkg, apt and the accounts' tools write for each package
  (cd "$root" && find . -path ./proc -prune -o -path ./run -prune -o -path ./dev -prune -o -path ./root -prune -o -path ./tmp -prune \
    -o -path ./var/lib/dpkg -prune -o -path ./var/lib/apt -prune -o -path ./var/cache -prune -o -path ./usr/sbin/policy-rc.d -o -path ./var/log/apt -prune -o -print |
    grep -vE '^\./(etc/(passwd|group|shadow|gshadow|subuid|subgid)-|etc/\.pwd\.lock|var/log/(dpkg|alternatives)\.log|var/lib/systemd(/.*)?)$' | sort)
}
accounts() { cat "$root/etc/passwd" "$root/etc/group"; }
before=$(files) accounts_before=$(accounts)

gate() { inside doorward status --socket /run/doorward/control.sock --format json 2>/dev/null | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' | sed -n 1p; } # the process that accepts
processes() { pgrep --uid "$(inside id -u doorward)" || true; }
admitted() { # a device, from outside
  (cd "$root/root" && curl --silent --show-error --max-time 10 --cert "doorward/devices/$1.pem" --key "doorward/devices/$1-key.pem" \
    --cacert doorward/pki/server-ca.pem --resolve nas.home.example:8443:127.0.0.1 https://nas.home.example:8443/) | grep -q 'web page'
}

# The transcript of the manual: its commands are run, and their output compared; "…" is any number of lines.
transcript=$(awk '/^\$ apt install \.\/doorward/ { inside = 1 } inside && /^```/ { exit } inside' "$repository/src/manual/setup.md")
[ -n "$transcript" ] || fail "src/manual/setup.md has no transcript"
normal() {
  sed -E 's/[0-9a-f]{32}/SERIAL/g; s/[0-9]{4}-[0-9]{2}-[0-9]{2}/DATE/g; s/OpenSSL\/[0-9.]+: ?//; s/error:[0-9A-F]+/error:NUMBER/; s/^curl: .*(alert certificate revoked).*/curl: \1/'
}
command=""
wanted=""
commands=0
ran=""
compare() {
  [ -n "$command" ] || return 0
  local got
  # curl is on the device.
  case $command in
    curl*) got=$(cd "$root/root" && eval "curl --silent --show-error ${command#curl}" 2>&1) || true ;;
    *) got=$(inside "$command" 2>&1) || { echo "$got"; fail "$command"; } ;;
  esac
  # A line "…" becomes a pattern for any lines.
  printf '%s\n' "$wanted" | normal > "$work/wanted"
  printf '%s\n' "$got" | normal > "$work/got"
  python3 - "$work/wanted" "$work/got" <<'PYTHON' || fail "output in src/manual/setup.md of: $command"
import re, sys
wanted, got = (open(name, encoding="utf-8").read().strip("\n") for name in sys.argv[1:])
pattern = "".join("(?:.*\n)*?" if line.strip() == "…" else re.escape(line) + "\n" for line in wanted.split("\n"))
if not re.fullmatch(pattern, got + "\n"):
    sys.exit(f"wanted:\n{wanted}\n\ngot:\n{got}")
PYTHON
  ok "transcript: ${command%%$'\n'*}"
  commands=$((commands + 1))
  ran+=" ${command%% *}"
  command=""
  wanted=""
}
continued=""
while IFS= read -r line; do
  if [ -n "$continued" ]; then
    command+=" $line"
  elif [[ $line == '$ '* ]]; then
    compare
    command=${line#'$ '}
  else
    wanted+=${wanted:+$'\n'}$line
    continue
  fi
  continued=""
  [[ $command != *\\ ]] || { command=${command%\\}; continued=yes; }
done <<< "$transcript"
compare
same "six commands: apt, and five that are neither cp nor chown" " apt doorward doorward curl doorward curl" "$ran"

# Without an init system and without this file, invoke-rc.d lets packages start and stop nothing.
printf '#!/bin/sh\nexit 0\n' > "$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"

# The gate that runs: as the unit would start it.
pid=$(gate)
check "gate runs" test -n "$pid"
same "gate runs with the command of the unit" "$(sed -n 's/^ExecStart=//p' "$unit")" "$(tr '\0' ' ' < "/proc/$pid/cmdline" | sed 's/ $//')"
same "gate runs without privileges" "CapPrm: 0000000000000000 NoNewPrivs: 1" \
  "$(sed -n 's/^\(CapPrm\|NoNewPrivs\):\t/\1: /p' "/proc/$pid/status" | tr '\n' ' ' | sed 's/ $//')"
check "status" inside doorward status
same "second installation has nothing to do" "Everything is installed already. Nothing was changed." \
  "$(inside doorward install 2>&1 | grep -v '^next: ')"
inside doorward ca device bob-laptop > "$work/said" 2>&1
check "another device is admitted" admitted bob-laptop

# An upgrade with an open session. A device that was revoked stays out, and what the administrator changed stays as it is.
sed -i 's/weekly/daily/' "$root/etc/logrotate.d/doorward"
inside "sed -i 's/^\[metrics\]/[timeouts]\ndrain = \"10m\"\n[metrics]/' $config"
coproc session { python3 "$repository/tests/packaging/peer.py" session 8443 "$root/root/doorward" bob-laptop; }
say() { echo "$1" >&"${session[1]}"; read -r -t 20 answer <&"${session[0]}" || answer="no answer"; echo "$answer"; }
same "session is open before the upgrade" "before" "$(say before)"
configured=$(cd "$root/etc/doorward" && sha256sum doorward.toml pki/*)
inside "apt-get install --yes ./$(basename "$upgrade")" > "$work/upgrade" 2>&1 || { cat "$work/upgrade"; fail upgrade; }
same "version after the upgrade" 9.0-1 "$(inside dpkg-query -W -f '\${Version}' doorward)"
check "upgrade says which process accepts connections" grep -q 'accepts connections now' "$work/upgrade"
check "a gate runs after the upgrade" admitted bob-laptop
refuse "revoked device stays out" admitted alice-phone
refuse "gate is another process" test "$pid" = "$(gate)"
same "gate runs the new program" "$(stat -c %d:%i "$root/usr/bin/doorward")" "$(stat -L -c %d:%i "/proc/$(gate)/exe")"
same "session goes on after the upgrade" "after" "$(say after)"
check "earlier process has the session" test -d "/proc/$pid"
check "installation has nothing to do after the upgrade" grep -q '^Everything is installed already' <(inside doorward install 2>&1)
exec {session[1]}>&-
wait "$session_PID" || true
until_true "earlier process ends with its session" test ! -d "/proc/$pid"
same "configuration is as it was" "$configured" "$(cd "$root/etc/doorward" && sha256sum doorward.toml pki/*)"
check "changed configuration file is kept" grep -q daily "$root/etc/logrotate.d/doorward"

# An upgrade of a gate that could not start again.
pid=$(gate)
cp "$root$config" "$work/good.toml"
echo 'mistake = 1' >> "$root$config"
inside "apt-get install --yes --allow-downgrades ./$(basename "$deb")" > "$work/said" 2>&1 || fail "upgrade with a mistake in the configuration"
check "upgrade says that the gate was not replaced" grep -q 'the gate runs on as the version before' "$work/said"
check "gate runs on" admitted bob-laptop
same "gate is the same process" "$pid" "$(gate)"
cat "$work/good.toml" > "$root$config"
check "restart by the script" inside /etc/init.d/doorward restart
check "device is admitted after the restart" admitted bob-laptop

# Removal.
check "removal" inside apt-get remove --yes doorward
same "no process after the removal" "" "$(processes)"
refuse "no program after the removal" test -e "$root/usr/bin/doorward"
check "configuration stays" test -s "$root$config" -a -s "$root/etc/doorward/pki/server-key.pem"
check "user stays" inside id doorward
# In place of the link that masks the unit of the removed package, as "doorward install" writes it.
rm "$root/etc/systemd/system/doorward.service"
echo "[Unit]" > "$root/etc/systemd/system/doorward.service"
inside apt-get purge --yes doorward > "$work/said" 2>&1 || fail "purge, with another program installed"
check "purge says what is kept for another program" grep -q 'are kept, for /etc/systemd/system/doorward.service' "$work/said"
check "configuration of another program stays" test -s "$root$config" -a -s "$root/etc/doorward/pki/server-key.pem"
check "user of another program stays" inside id doorward
rm "$root/etc/systemd/system/doorward.service"
check "reinstallation starts the gate" inside "apt-get install --yes ./$(basename "$deb")"
until_true "the gate admits" admitted bob-laptop

# Purge, with what "doorward install" writes where there is systemd.
touch "$root/usr/lib/systemd/systemd"
inside "sed -i 's/:8443\"/:443\"/; 1i kernel_tls = \"auto\"' $config && doorward install --load-credential" > "$work/said" 2>&1 ||
  { cat "$work/said"; fail "installation with credentials"; }
rm "$root/usr/lib/systemd/systemd"
for file in systemd/system/doorward.service.d/install.conf modules-load.d/doorward.conf doorward/credentials/server-key.pem; do
  check "there before the purge: $file" test -s "$root/etc/$file"
done
authority=$(cd "$root/root" && find doorward -type f -exec sha256sum {} + | sort)
inside apt-get purge --yes doorward > "$work/said" 2>&1 || fail "purge"
# systemd's, and empty.
rmdir "$root/etc/modules-load.d"
check "purge says where the authorities are" grep -q 'the authorities in /root/doorward/pki are kept' "$work/said"
same "folder of the owner is as it was" "$authority" "$(cd "$root/root" && find doorward -type f -exec sha256sum {} + | sort)"
same "no file is left" "$before" "$(files)"
same "no user is left" "$accounts_before" "$(accounts)"

# Purge, with the keys of the authorities in /etc/doorward.
inside "apt-get install --yes ./$(basename "$deb") && doorward install --with-authority" > "$work/said" 2>&1 || { cat "$work/said"; fail "installation with the authorities"; }
until_true "the gate admits" admitted bob-laptop
inside apt-get purge --yes doorward > "$work/said" 2>&1 || fail "purge"
check "purge says that the authorities are kept" grep -q '/etc/doorward/pki holds the keys of your authorities, and is kept' "$work/said"
check "keys of the authorities are kept" test -s "$root/etc/doorward/pki/clients-key.pem" -a -s "$root/etc/doorward/devices/bob-laptop-key.pem"
refuse "configuration is gone" test -e "$root$config"
same "nothing belongs to a user that is gone" "" "$(chroot "$root" find /etc/doorward -nouser -o -nogroup)"
check "user stays for its files" inside id doorward
