#!/bin/sh
# Real processes under mixed load, and a random fault every ten seconds: a verdict after so many minutes. soak.py --help says more.
#
#   bench/soak.sh 30 [--seed N] [--json report.json] [--bin build/release/bin]
exec python3 -B "$(dirname "$0")/soak.py" "$@"
