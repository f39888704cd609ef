#!/usr/bin/env bash
# Unpacks what the arm64 preset compiles and links against into build/arm64-sysroot: Debian's arm64 packages, from where
# this machine's apt gets its own. The machine's package database stays as it is. Quick when all is there.
#
# Exit status 77: the packages can't be had, so that a test skips.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(
  libc6 libc6-dev linux-libc-dev libcrypt1 libcrypt-dev libgcc-s1 libgcc-12-dev libstdc++6 libstdc++-12-dev
  libabsl-dev libabsl20220623 libspdlog-dev libspdlog1.10 libfmt-dev libfmt9 libssl-dev libssl3 libxxhash-dev libxxhash0
  nlohmann-json3-dev libgtest-dev libgmock-dev
)
sysroot=build/arm64-sysroot
stamp="$sysroot/.packages"
[ "$(cat "$stamp" 2>/dev/null)" != "${packages[*]}" ] || exit 0

cannot() { echo "arm64-sysroot: $1" >&2; exit 77; }
command -v apt-get dpkg-deb >/dev/null || cannot 'needs apt-get and dpkg-deb'

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{state/lists/partial,cache/archives/partial,debs}
: >"$work/state/status"
# An apt of its own: the machine's sources and keys, another architecture, nothing installed.
cat >"$work/apt.conf" <<CONF
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "2";
Dir::State "$work/state";
Dir::State::status "$work/state/status";
Dir::Cache "$work/cache";
CONF
export APT_CONFIG="$work/apt.conf"
apt-get -qq update >"$work/log" 2>&1 || cannot "no arm64 package lists: $(tail -n 1 "$work/log")"
(cd "$work/debs" && apt-get -qq download "${packages[@]}") >"$work/log" 2>&1 ||
  cannot "no arm64 packages: $(tail -n 1 "$work/log")"

rm -rf "$sysroot"
mkdir -p "$sysroot/usr/lib"
ln -s usr/lib "$sysroot/lib"  # as Debian has it
for deb in "$work"/debs/*.deb; do
  dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink -C "$sysroot"
done
# Absolute links would lead out of the sysroot.
find "$sysroot" -type l -lname '/*' -print0 | while IFS= read -r -d '' link; do
  ln -snf --relative "$sysroot$(readlink "$link")" "$link"
done
echo "${packages[*]}" >"$stamp"
