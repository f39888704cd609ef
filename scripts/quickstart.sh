#!/usr/bin/env bash
# From a fresh clone to a running cluster: installs, builds, starts a coordinator and two workers on this machine
# with the bundled model, and asks it something through the API.
#
#   scripts/quickstart.sh [--once] [QUESTION]
#
# Stays up until Ctrl-C; with --once it stops after the answer. Leaves no process, port or folder behind.
set -euo pipefail
set -m  # every child gets a process group of its own, so that stop() reaches all that it started
cd "$(dirname "$0")/.."

once=false
if [ "${1:-}" = --once ]; then once=true; shift; fi
case "${1:-}" in -*) sed -n '2,7s/^# \?//p' "$0"; exit 2 ;; esac
question=${1:-Tell me a story about a fox named Milo.}
model=models/seedling/seedling-q8_0.gguf

children=()
state=
stop() {
  trap '' INT TERM HUP
  exec 2>/dev/null  # bash would name every child that it sees end
  # Workers first: a coordinator that loses its workers has nothing to drain.
  for ((i = ${#children[@]} - 1; i >= 0; i--)); do kill -TERM -- "-${children[i]}" 2>/dev/null || true; done
  for ((tries = 0; tries < 100; tries++)); do
    alive=false
    for child in "${children[@]}"; do kill -0 -- "-$child" 2>/dev/null && alive=true; done
    $alive || break
    sleep 0.1
  done
  for child in "${children[@]}"; do kill -KILL -- "-$child" 2>/dev/null || true; done
  wait 2>/dev/null || true
  [ -z "$state" ] || rm -rf "$state"
}
trap stop EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

start() {  # start LOG COMMAND...: in the background, output to LOG
  local log=$1
  shift
  "$@" >"$log" 2>&1 &
  children+=($!)
}
finish() {  # finish COMMAND...: waits for it, but a signal gets through at once
  "$@" &
  children+=($!)
  local status=0
  wait $! || status=$?
  unset 'children[-1]'
  return $status
}
fail() {
  echo "quickstart: $1" >&2
  [ -z "$state" ] || tail -n 15 "$state"/*.log >&2
  exit 1
}
await() {  # await WHAT SECONDS COMMAND...: until COMMAND succeeds, as long as all daemons live
  local what=$1 tries=$(($2 * 5))
  shift 2
  until "$@" >/dev/null 2>&1; do
    for child in "${children[@]}"; do kill -0 "$child" 2>/dev/null || fail "a daemon ended before $what"; done
    ((tries-- > 0)) || fail "timed out waiting: $what"
    sleep 0.2
  done
}

scripts/install-deps.sh  # in the foreground: sudo may ask for a password
finish cmake --preset release >/dev/null
finish ninja -C build/release efedllm-coord efedllm-worker
bin=build/release/bin

state=$(mktemp -d "${TMPDIR:-/tmp}/efedllm-quickstart.XXXXXX")
read -r grpc_port http_port < <(python3 -c '
import socket
sockets = [socket.socket() for _ in range(2)]
for s in sockets: s.bind(("127.0.0.1", 0))
print(*(s.getsockname()[1] for s in sockets))')
url=http://127.0.0.1:$http_port
threads=$((($(nproc) + 1) / 2))

start "$state/coordinator.log" "$bin/efedllm-coord" --model "$model" --listen "127.0.0.1:$grpc_port" \
  --http "127.0.0.1:$http_port" --state-dir "$state/coordinator" --min-workers 2
await 'the coordinator printed a join token' 30 test -s "$state/coordinator/join-token"
EFEDLLM_TOKEN=$(cat "$state/coordinator/join-token")
export EFEDLLM_TOKEN
for worker in worker-1 worker-2; do
  start "$state/$worker.log" "$bin/efedllm-worker" --join "127.0.0.1:$grpc_port" --listen 127.0.0.1:0 \
    --state-dir "$state/$worker" --name "$worker" --threads "$threads"
done
await 'both workers were ready' 120 curl -fsS --max-time 2 "$url/health"

printf '\n> %s\n\n' "$question"
finish scripts/ask.py "$url" "$question" || fail 'no answer'

cat <<TEXT

This was Seedling, over one coordinator and two workers. The API: $url/v1

  curl -N $url/v1/chat/completions -H 'Content-Type: application/json' -d \\
    '{"messages": [{"role": "user", "content": "What is 27 + 48?"}], "stream": true}'
TEXT
if ! $once; then
  printf '\nCtrl-C stops it.\n'
  wait -n || true
  fail 'a daemon ended by itself'
fi
