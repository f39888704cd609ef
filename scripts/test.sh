#!/usr/bin/env bash
# Installs what is needed, builds the release preset and runs every test. Arguments go to ctest, e.g. -R house.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/install-deps.sh --tests
cmake --preset release
cmake --build --preset release
exec ctest --preset release --parallel "$(nproc)" "$@"
