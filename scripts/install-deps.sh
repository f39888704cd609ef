#!/usr/bin/env bash
# Installs what the build and the tests need on Debian 12, with apt. Says nothing and is quick when all is there.
#
#   scripts/install-deps.sh           to build and to run
#   scripts/install-deps.sh --tests   also QEMU and SIMDe for tests on emulated CPUs, and Node.js and npm, unless there is
#                                     an npm, for the test with the openai client
set -euo pipefail

packages=(
  clang lld cmake ninja-build ccache pkg-config        # compiler and build
  clang-format clang-tidy python3                      # the house tests
  libclang-rt-14-dev                                   # sanitizers and libFuzzer
  curl ca-certificates                                 # quickstart, downloads
  libgrpc++-dev libprotobuf-dev protobuf-compiler protobuf-compiler-grpc
  libabsl-dev libssl-dev libspdlog-dev libfmt-dev libcli11-dev nlohmann-json3-dev libeigen3-dev
  libsqlitecpp-dev libsqlite3-dev prometheus-cpp-dev libcpp-httplib-dev libxxhash-dev libsystemd-dev
  libtomlplusplus-dev
  libgtest-dev libgmock-dev libbenchmark-dev
)
case "${1:-}" in
  '') ;;
  --tests)
    packages+=(qemu-user-static libsimde-dev)
    command -v npm >/dev/null || packages+=(nodejs npm)
    ;;
  *) echo "usage: $0 [--tests]" >&2; exit 2 ;;
esac

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$status" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

# shellcheck source=/dev/null
. /etc/os-release
[ "${ID:-} ${VERSION_ID:-}" = 'debian 12' ] ||
  echo "install-deps: tested on Debian 12 only, and this is ${PRETTY_NAME:-another system}; going on" >&2

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || { echo 'install-deps: run me as root, or install sudo' >&2; exit 1; }
  as_root=(sudo)
fi
echo "install-deps: installing ${#missing[@]} packages and what they need" >&2
"${as_root[@]}" apt-get -q update
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
  apt-get -qy --no-install-recommends -o Dpkg::Use-Pty=0 install "${missing[@]}"
