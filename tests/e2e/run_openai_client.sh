#!/usr/bin/env bash
# The official OpenAI client against a real cluster: a coordinator and two workers on loopback, with TLS
# between them, serving the bundled model.
#
#   tests/e2e/run_openai_client.sh BIN_DIR WORK_DIR
#
# BIN_DIR has efedllm-coord and efedllm-worker. WORK_DIR keeps the installed client from one run to the next.
# 77: skipped, because node, npm or the client can't be had here.
set -euo pipefail
set -m  # every child gets a process group of its own

bin=$(realpath "$1")
mkdir -p "$2"
work=$(realpath "$2")
here=$(cd "$(dirname "$0")" && pwd)
model=$(cd "$here/../.." && pwd)/models/seedling/seedling-q8_0.gguf

for tool in node npm; do
  command -v $tool >/dev/null || { echo "SKIPPED: there is no $tool"; exit 77; }
done
[ "$(node -p 'process.versions.node.split(".")[0] >= 18')" = true ] ||
  { echo "SKIPPED: node $(node --version) is older than 18"; exit 77; }

children=()
state=$(mktemp -d "${TMPDIR:-/tmp}/efedllm-e2e.XXXXXX")
stop() {
  trap '' INT TERM HUP
  for ((i = ${#children[@]} - 1; i >= 0; i--)); do kill -TERM -- "-${children[i]}" 2>/dev/null || true; done
  for ((tries = 0; tries < 100; tries++)); do
    alive=false
    for child in "${children[@]}"; do kill -0 -- "-$child" 2>/dev/null && alive=true; done
    $alive || break
    sleep 0.1
  done
  for child in "${children[@]}"; do kill -KILL -- "-$child" 2>/dev/null || true; done
  rm -rf "$state"
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

start() {  # start LOG COMMAND...: in the background
  local log=$1
  shift
  "$@" >"$log" 2>&1 &
  children+=($!)
}
fail() {
  echo "e2e: $1" >&2
  tail -n 40 "$state"/*.log >&2
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
healthy() {
  node -e 'fetch(process.argv[1]).then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))' "$1/health"
}

cp "$here"/openai_client/{package.json,package-lock.json,openai_client.test.mjs} "$work"
if ! cmp -s "$work/package-lock.json" "$work/installed-lock.json"; then
  (cd "$work" && npm ci --no-audit --no-fund --ignore-scripts) ||
    { echo 'SKIPPED: the openai client could not be installed'; exit 77; }
  cp "$work/package-lock.json" "$work/installed-lock.json"
fi

read -r grpc_port http_port < <(node -e '
  const net = require("net");
  const servers = [0, 1].map(() => net.createServer().listen(0, "127.0.0.1"));
  setTimeout(() => { console.log(servers.map((s) => s.address().port).join(" ")); process.exit(); }, 50);')
url=http://127.0.0.1:$http_port

start "$state/coordinator.log" "$bin/efedllm-coord" --model "$model" --listen "127.0.0.1:$grpc_port" \
  --http "127.0.0.1:$http_port" --state-dir "$state/coordinator" --min-workers 2
await 'the coordinator printed a join token' 60 test -s "$state/coordinator/join-token"
for worker in worker-1 worker-2; do
  start "$state/$worker.log" "$bin/efedllm-worker" --join "127.0.0.1:$grpc_port" \
    --token "$(cat "$state/coordinator/join-token")" --state-dir "$state/$worker" --threads 1
done
await 'both workers were ready' 120 healthy "$url"

(cd "$work" && EFEDLLM_URL=$url node --test openai_client.test.mjs) || fail 'the client found something wrong'
for child in "${children[@]}"; do kill -0 "$child" 2>/dev/null || fail 'a daemon ended by itself'; done
