#!/usr/bin/env bash
# Runs the SDKs of OpenAI, Anthropic, Google, AWS and Vercel against a gateway and its mock provider, and checks every bill.
# Usage: tests/sdk/run.sh [BINARY]. Needs python3, node 20 and npm.
set -euo pipefail

tests=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$tests/../.." && pwd)
binary=$(realpath -- "${1:-$root/target/debug/tollgate}")
venv=$root/target/sdk/venv
node=$root/target/sdk/node
python=$venv/bin/python
export PYTHONDONTWRITEBYTECODE=1

[[ -x $binary ]] || { echo "there is no gateway at $binary; build it first" >&2; exit 2; }

# Debian has venv without ensurepip unless python3-venv is installed.
make_venv() {
    rm -rf "$venv"
    python3 -m venv "$venv" >/dev/null && return
    local tool=$root/target/sdk/virtualenv
    python3 -m pip install --quiet --target "$tool" --upgrade virtualenv==21.15.11
    rm -rf "$venv"
    PYTHONPATH=$tool python3 -m virtualenv --quiet "$venv"
}

if ! [[ -x $python ]] || ! cmp -s "$tests/requirements.txt" "$venv/requirements.txt"; then
    mkdir -p "$root/target/sdk"
    make_venv
    "$python" -m pip install --quiet --disable-pip-version-check -r "$tests/requirements.txt"
    cp "$tests/requirements.txt" "$venv/requirements.txt"
fi
if ! cmp -s "$tests/package-lock.json" "$node/installed"; then
    rm -rf "$node"
    mkdir -p "$node"
    cp "$tests/package.json" "$tests/package-lock.json" "$node"
    (cd "$node" && npm ci --no-audit --no-fund --loglevel=error)
    cp "$tests/package-lock.json" "$node/installed"
fi
# Node looks for packages beside the test.
cp "$tests"/*.mjs "$node"

run=$(mktemp -d)
gateway=
stop() {
    local code=$?
    trap - EXIT
    if [[ -n $gateway ]]; then
        kill -TERM "$gateway" 2>/dev/null || true
        for _ in {1..200}; do
            kill -0 "$gateway" 2>/dev/null || break
            sleep 0.05
        done
        if kill -KILL "$gateway" 2>/dev/null; then
            echo "the gateway did not stop in time" >&2
            code=1
        elif ! wait "$gateway"; then
            echo "the gateway ended with an error" >&2
            code=1
        fi
        if grep -q panicked "$run/stderr"; then
            code=1
        fi
    fi
    if [[ $code != 0 && -s $run/stderr ]]; then
        echo "--- the gateway said:" >&2
        tail -n 50 "$run/stderr" >&2
    fi
    rm -rf "$run"
    exit "$code"
}
trap stop EXIT
trap 'exit 130' INT TERM HUP

read -r port mock_port socket_port < <("$python" - <<'PYTHON'
import socket

sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*[each.getsockname()[1] for each in sockets])
PYTHON
)
cat >"$run/tollgate.yaml" <<YAML
listen: [127.0.0.1:$port]
admin: off
mock: 127.0.0.1:$mock_port
data: $run/data
environment_providers: false
providers:
  azure: {base_url: "http://127.0.0.1:$mock_port/openai/v1", api_key: none, prices: mock}
  socketed: {kind: openai, base_url: "http://127.0.0.1:$socket_port/v1", api_key: upstream-key, prices: mock, allow: ["GET /realtime"]}
  jobs: {kind: openai, base_url: "http://127.0.0.1:$mock_port/v1", api_key: none, prices: mock, allow: ["GET /files/*", "POST /batches"]}
  letters: {kind: anthropic, base_url: "http://127.0.0.1:$mock_port/v1", api_key: none, prices: mock, allow: ["GET /messages/batches/*", "POST /messages/batches"]}
  signed:
    kind: bedrock
    base_url: "http://127.0.0.1:$mock_port/openai/v1"
    region: us-east-1
    access_key_id: AKIDEXAMPLE
    secret_access_key: none
    prices: mock
body: {bytes_max: 1MiB}
timeouts: {drain: 5s}
access_log: $run/access.jsonl
YAML

"$binary" --config "$run/tollgate.yaml" 2>"$run/stderr" &
gateway=$!
"$python" "$tests/wait.py" "$gateway" "$port" "$mock_port"

export TOLLGATE_URL=http://127.0.0.1:$port TOLLGATE_LEDGER=$run/data/ledger TOLLGATE_ACCESS_LOG=$run/access.jsonl
export TOLLGATE_SOCKET_PORT=$socket_port
export TOLLGATE_BINARY=$binary
export TOLLGATE_PRICES=$root/conf/prices/mock.yaml
failed=0
"$python" -m pytest -q -p no:cacheprovider --rootdir "$tests" "$tests" || failed=1
(cd "$node" && node --test --test-reporter=spec *.test.mjs) || failed=1
exit "$failed"
