# What the tests of the packages share: results, an empty Debian, a backend and a device with an open session.

repository=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
work=$repository/target/packaging
out=${PACKAGING_OUT:-$repository/target/packages}
mkdir -p "$work"
passed=0

ok() { passed=$((passed + 1)); echo "ok   $*"; }
fail() { echo "FAIL $*" >&2; exit 1; }
# check WHAT COMMAND…: the command succeeds.
check() { local what=$1; shift; "$@" > "$work/last" 2>&1 || { cat "$work/last" >&2; fail "$what"; }; ok "$what"; }
# refuse WHAT COMMAND…: the command fails.
refuse() { local what=$1; shift; ! "$@" > "$work/last" 2>&1 || { cat "$work/last" >&2; fail "$what"; }; ok "$what"; }
# same WHAT WANTED GOT
same() { [ "$2" = "$3" ] || { diff <(echo "$2") <(echo "$3") >&2 || true; fail "$1"; }; ok "$1"; }
# until_true WHAT COMMAND…: waits until it succeeds.
until_true() {
  local what=$1 end=$((SECONDS + 60)); shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || fail "waited for a minute: $what"
    sleep 0.1
  done
}

# An empty Debian of a suite, made once: prints its folder. It comes from a mirror, which is out of reach in "alone".
debian() {
  local suite=$1 base=$work/$1 mirror
  if [ ! -e "$base.done" ]; then
    mirror=$(awk '/^(URIs:|deb )/ { for (at = 2; at <= NF; at++) if ($at ~ "^[a-z]+://.*/debian/?$" && !seen++) print $at }' \
      $(find /etc/apt -name '*.list' -o -name '*.sources'))
    rm -rf "$base"
    debootstrap --variant=minbase "$suite" "$base" "$mirror" > "$base.log" 2>&1 || { tail -5 "$base.log" >&2; return 1; }
    touch "$base.done"
  fi
  echo "$base"
}

# In a mount namespace: a copy of the empty Debian of a suite, of which only the changes take space, at $root.
copy_of() {
  local base
  base=$(debian "$1")
  root=$work/root
  mkdir -p "$root" "$work/changes"
  mount -t tmpfs tmpfs "$work/changes"
  mkdir "$work/changes/upper" "$work/changes/work"
  mount -t overlay -o "lowerdir=$base,upperdir=$work/changes/upper,workdir=$work/changes/work" overlay "$root"
  mount -t proc proc "$root/proc"
  mount -t tmpfs -o mode=755 tmpfs "$root/run"
  for device in null zero random urandom; do
    [ -c "$root/dev/$device" ] || { touch "$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"; }
  done
}

# A command in it, as root who has just logged in.
inside() { env -i HOME=/root TERM=dumb LC_ALL=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  DEBIAN_FRONTEND=noninteractive chroot "$root" sh -c 'cd "$HOME" && eval "$1"' sh "$*"; }

# Runs a script of this folder in namespaces of its own: its mounts, its network (loopback only) and its processes end with it.
alone() {
  unshare --mount --net --pid --fork --kill-child=KILL --mount-proc bash -euo pipefail -c \
    'ip link set lo up; . "$0/tests/packaging/lib.sh"; . "$0/tests/packaging/$1"; echo "$passed passed, 0 failed"' \
    "$repository" "$1"
}

# Starts the web page of the NAS.
backend() {
  : > "$work/backend"
  python3 "$repository/tests/packaging/peer.py" backend 5666 >> "$work/backend" &
  until_true "the backend listens" grep -q ready "$work/backend"
}
