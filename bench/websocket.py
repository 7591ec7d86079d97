"""Measures what the gateway adds to a message on a WebSocket, over a direct connection: one message up, one down, in
alternating rounds, with the same server behind both. Needs the `websockets` package:

    target/sdk/venv/bin/python bench/websocket.py target/release/tollgate
"""

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

from websockets.sync.client import connect
from websockets.sync.server import serve

ROUNDS, MESSAGES = 5, 2000
MESSAGE = '{"type":"response.output_text.delta","delta":"' + "x" * 200 + '"}'


def echo(socket):
    for message in socket:
        socket.send(message)


def round_trips_us(socket):
    out = []
    for _ in range(MESSAGES):
        start = time.perf_counter()
        socket.send(MESSAGE)
        socket.recv()
        out.append((time.perf_counter() - start) * 1e6)
    return out


def main():
    scratch = tempfile.mkdtemp(prefix="tollgate-websocket-")
    server = serve(echo, "127.0.0.1", 0)
    upstream = server.socket.getsockname()[1]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    probe = serve(echo, "127.0.0.1", 0)
    port = probe.socket.getsockname()[1]
    probe.socket.close()
    config = os.path.join(scratch, "tollgate.yaml")
    with open(config, "w") as f:
        f.write(f"listen: ['127.0.0.1:{port}']\nadmin: off\nmock: off\nworkers: 1\ndata: {scratch}/data\naccess_log: off\n"
                f"environment_providers: false\nproviders: {{openai: {{base_url: 'http://127.0.0.1:{upstream}/v1', api_key: k}}}}\n")
    gateway = subprocess.Popen([sys.argv[1], "-c", config], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stack = contextlib.ExitStack()
    try:
        paths = {"direct": upstream, "tollgate": port}
        sockets = {}
        for name, at in paths.items():
            for _ in range(200):
                try:
                    socket = connect(f"ws://127.0.0.1:{at}/v1/responses", compression=None, proxy=None)
                    sockets[name] = stack.enter_context(socket)
                    break
                except OSError:
                    time.sleep(0.02)
        rounds = {name: [] for name in paths}
        for turn in range(ROUNDS + 1):
            for name in list(paths)[:: 1 if turn % 2 else -1]:
                times = round_trips_us(sockets[name])
                if turn > 0:
                    rounds[name].append((statistics.median(times), statistics.quantiles(times, n=100)[98]))
        rows = {name: [statistics.median(column) for column in zip(*values)] for name, values in rounds.items()}
        for name, (p50, p99) in rows.items():
            print(f"{name:9} round trip p50 {p50:6.0f} µs, p99 {p99:6.0f} µs")
        added = [(gate - direct) / 2 for gate, direct in zip(rows["tollgate"], rows["direct"])]
        print(f"added per message: p50 {added[0]:.0f} µs, p99 {added[1]:.0f} µs; load average {os.getloadavg()[0]:.2f}")
    finally:
        stack.close()
        gateway.kill()
        shutil.rmtree(scratch)
        os._exit(0)


main()
