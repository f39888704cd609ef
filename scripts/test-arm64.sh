#!/usr/bin/env bash
# Cross-compiles the engine for 64-bit ARM and runs its tests under QEMU, on the latest CPU and on one without dot
# products.
#
#   scripts/test-arm64.sh build          the arm64 preset, in build/arm64
#   scripts/test-arm64.sh layers_test    the test binary of that name; or numerics_test
#
# Exit status 77: what this takes is not here, so that a test skips.
set -euo pipefail
cd "$(dirname "$0")/.."
part=${1:?what to run: build, layers_test or numerics_test}

cannot() { echo "test-arm64: skipped, $1" >&2; exit 77; }
command -v qemu-aarch64-static >/dev/null || cannot 'no qemu-aarch64-static (scripts/install-deps.sh --tests)'
command -v clang++ >/dev/null || cannot 'no clang++'

if [ "$part" = build ]; then
  scripts/arm64-sysroot.sh
  cmake --preset arm64
  exec cmake --build --preset arm64 --parallel 2
fi
binary=build/arm64/bin/$part
[ -x "$binary" ] || cannot "no $binary"

# On <cpu>, those tests of the binary that <filter> names.
emulate() {
  echo "test-arm64: $part on $1, $2"
  qemu-aarch64-static -L build/arm64-sysroot -cpu "$1" "$binary" --gtest_filter="$2"
}
case "$part" in
  layers_test)
    # Not the definition against itself, nor twice what both NEON tables share; numerics_test runs layers at length.
    emulate max '-*/scalar*:*RowKernels*/neon_dotprod:*AttentionKernels*/neon_dotprod*:DecoderLayer.ChunksThreads*'
    emulate cortex-a53 '*/neon'
    ;;
  numerics_test)
    emulate max '*'
    emulate cortex-a53 '*Table*/llama:*Table*/gemma2'
    ;;
  *) echo "test-arm64: there is no part $part" >&2; exit 2 ;;
esac
