#!/usr/bin/env bash
# Runs every fuzz target, one after the other, under AddressSanitizer and UndefinedBehaviorSanitizer.
#
#   scripts/fuzz.sh [SECONDS_EACH] [TARGET...]     default: 60 seconds, all targets
#
# What it finds to be interesting is kept in build/asan/corpus/TARGET; an input that crashes in build/asan/crashes/.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-60}
shift || true
[[ $seconds =~ ^[0-9]+$ ]] || { sed -n '2,6s/^# \?//p' "$0" >&2; exit 2; }

scripts/install-deps.sh
cmake --preset asan >/dev/null
cmake --build --preset asan --target fuzzers

targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
  for source in tests/fuzz/*_fuzz.cc; do targets+=("$(basename "$source" .cc)"); done
fi
mkdir -p build/asan/crashes
failed=()
for target in "${targets[@]}"; do
  echo "== $target, $seconds s"
  kept=build/asan/corpus/$target seeds=tests/fuzz/corpus/${target%_fuzz}
  mkdir -p "$kept"
  corpora=("$kept")
  [ -d "$seeds" ] && corpora+=("$seeds")
  "build/asan/bin/$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="build/asan/crashes/$target-" "${corpora[@]}" 2>&1 | tail -n 12 || failed+=("$target")
done
[ ${#failed[@]} -eq 0 ] || { echo "fuzz: failed: ${failed[*]}; inputs in build/asan/crashes" >&2; exit 1; }
