"""Kills a gateway under load and audits its ledger: crash.py BINARY KILLS. Standard library only.

What must hold, whenever the process died: a response whose last byte a client received has one entry with its exact
usage; a request that reached the upstream has an entry; no entry is there twice or has usage that nobody reported. SQLite
says the same, and PostgreSQL, where there is one, which is cut itself now and then.
"""

import http.client
import http.server
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from contextlib import ExitStack, closing
from decimal import Decimal
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "sdk"))
from postgresql import PostgreSQL

CLIENTS = 50
OUTPUT = 7
START_S = 20
CATCH_UP_S = 60


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


class Upstream(http.server.BaseHTTPRequestHandler):
    """Says as many prompt tokens as the request's `seed`."""

    protocol_version = "HTTP/1.1"
    reached = set()

    def do_POST(self):
        Upstream.reached.add(self.headers["x-request-id"])
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        usage = {"prompt_tokens": asked["seed"], "completion_tokens": OUTPUT, "total_tokens": asked["seed"] + OUTPUT}
        if asked.get("stream"):
            self.stream(usage)
        else:
            body = {"id": "c", "model": "mock-small", "choices": [{"finish_reason": "stop"}], "usage": usage}
            self.answer("application/json", json.dumps(body).encode())

    def answer(self, kind, body):
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self, usage):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        delta = {"id": "c", "model": "mock-small", "choices": [{"delta": {"content": "x"}, "finish_reason": None}]}
        last = {"id": "c", "choices": [{"delta": {}, "finish_reason": "stop"}]}
        events = [delta] * 5 + [last, {"id": "c", "choices": [], "usage": usage}]
        for text in [f"data: {json.dumps(event)}\n\n" for event in events] + ["data: [DONE]\n\n"]:
            self.wfile.write(f"{len(text):x}\r\n{text}\r\n".encode())
            time.sleep(random.random() / 200)
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, *_):
        """The gateway that was being answered is dead: that is what this is about."""


class Client(threading.Thread):
    def __init__(self, port, seeds, done):
        super().__init__(daemon=True)
        self.port, self.seeds, self.done, self.whole, self.refused = port, seeds, done, {}, []

    def run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        while not self.done.is_set():
            seed = next(self.seeds)
            body = json.dumps({"model": "up/mock-small", "messages": [], "seed": seed, "stream": seed % 2 == 0})
            try:
                connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
                answer = connection.getresponse()
                request_id = answer.headers["x-gateway-request-id"]
                answer.read()
                if answer.status == 200:
                    self.whole[request_id] = seed
                else:
                    self.refused.append(answer.status)
            except (OSError, http.client.HTTPException):
                connection.close()
                time.sleep(0.01)


def start(binary, config, port):
    process = subprocess.Popen([binary, "-c", config], stderr=subprocess.DEVNULL)
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process
        time.sleep(0.005)
    sys.exit("the gateway did not start")


def records(folder):
    """Every record whose checksum holds; what a kill tore is damage, never a record."""
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_bytes().split(b"\n"):
            content, mark, crc = line.rpartition(b',"crc":"')
            if mark and len(crc) == 10 and int(crc[:8], 16) == zlib.crc32(content):
                yield json.loads(line)


def audit(folder, whole):
    entries = {}
    for record in records(folder):
        parts = entries.setdefault(record["id"], {})
        assert record["record"] not in parts or record["record"] == "usage", f"written twice: {record}"
        parts[record["record"]] = record
    by_request = {}
    for parts in entries.values():
        assert "open" in parts, f"no beginning: {parts}"
        by_request.setdefault(parts["open"]["request_id"], []).append(parts)
    for request_id, seed in whole.items():
        found = [parts for parts in by_request.get(request_id, []) if "usage" in parts]
        assert len(found) == 1, f"{request_id} was answered and has {len(found)} entries with usage"
        [line] = found[0]["usage"]["lines"]
        assert line["usage"] == {"input": seed, "output": OUTPUT}, (request_id, seed, line)
        assert found[0]["usage"]["total"] == line["charge"] != "0"
    missing = Upstream.reached - set(by_request)
    assert not missing, f"{len(missing)} requests reached the upstream and have no entry: {sorted(missing)[:3]}"
    return entries


def in_sqlite(path):
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT e.id, outcome, micro_usd, pico_usd FROM entries e LEFT JOIN lines ON entry = e.id").fetchall()
    return [(entry, outcome, None if micro is None else micro * 10**6 + pico) for entry, outcome, micro, pico in rows]


def in_postgres(server):
    rows = server.ask("SELECT e.id, outcome, l.usd FROM tollgate_entries e LEFT JOIN tollgate_lines l ON entry = e.id")
    return [(entry, outcome, Decimal(usd) * 10**12 if usd else None) for entry, outcome, usd in rows]


def audit_database(rows, entries):
    """A database has every entry once, with what the ledger says it used; those of dead processes as interrupted."""
    until = time.monotonic() + CATCH_UP_S
    while len({row[0] for row in rows()}) < len(entries):
        assert time.monotonic() < until, f"the database has {len(rows())} of {len(entries)} entries"
        time.sleep(0.1)
    found = rows()
    assert len(found) == len(entries) and {row[0] for row in found} == set(entries), "the database has other entries than the ledger"
    for entry, outcome, charge in found:
        parts = entries[entry]
        assert outcome == parts.get("close", {"outcome": "interrupted"})["outcome"], (outcome, parts)
        total = int(parts["usage"]["total"]) if parts.get("usage", {}).get("lines") else None
        assert charge == total, (charge, parts)


def main():
    binary, kills = sys.argv[1], int(sys.argv[2])
    random.seed(kills)
    server = Server(("127.0.0.1", 0), Upstream)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with ExitStack() as stack:
        folder, port = Path(stack.enter_context(tempfile.TemporaryDirectory())), free_port()
        postgres = PostgreSQL() if PostgreSQL.tools() else None
        if postgres:
            postgres.start()
            stack.callback(postgres.remove)
        config = folder / "tollgate.yaml"
        config.write_text(
            f"listen: [127.0.0.1:{port}]\nadmin: off\nmock: off\nworkers: 2\ndata: {folder}\naccess_log: off\n"
            "environment_providers: false\nledger: {segment_bytes: 64KiB}\n"
            f'providers: {{up: {{base_url: "http://127.0.0.1:{server.server_port}/v1", prices: mock, stream_usage: on_request}}}}\n'
            + (f"sinks: {{postgres: {{url: '{postgres.url}'}}}}\n" if postgres else "")
        )
        done, counter = threading.Event(), iter(range(1, 1 << 40))
        clients = [Client(port, counter, done) for _ in range(CLIENTS)]
        process = start(binary, config, port)
        for client in clients:
            client.start()
        for kill in range(kills):
            time.sleep(random.uniform(0.2, 0.8))
            if postgres and kill % 5 == 2:
                postgres.stop()
            if postgres and kill % 5 == 4:
                postgres.start()
            process.send_signal(signal.SIGKILL)
            process.wait()
            process = start(binary, config, port)
        if postgres and kills % 5 in (3, 4):
            postgres.start()
        done.set()
        for client in clients:
            client.join(20)
            assert not client.is_alive(), "a client hangs"
        process.terminate()
        assert process.wait(20) == 0, "the gateway did not leave well"
        whole = {request_id: seed for client in clients for request_id, seed in client.whole.items()}
        refused = [status for client in clients for status in client.refused]
        entries = audit(folder / "ledger", whole)
        # Whoever comes last finds what the others left.
        process = start(binary, config, port)
        audit_database(lambda: in_sqlite(folder / "usage.db"), entries)
        if postgres:
            audit_database(lambda: in_postgres(postgres), entries)
        process.terminate()
        assert process.wait(20) == 0
        ended = sum("close" in parts for parts in entries.values())
        print(
            f"{kills} kills: {len(whole)} answers received whole, {len(Upstream.reached)} requests at the upstream, "
            f"{len(entries)} entries ({len(entries) - ended} interrupted), {len(refused)} refused {sorted(set(refused))}, "
            + ("the same in SQLite and PostgreSQL" if postgres else "the same in SQLite; there is no PostgreSQL server on this machine")
        )
        assert len(whole) > 20 * kills, "there was no load to speak of"
    os._exit(0)


main()
