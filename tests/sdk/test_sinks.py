"""Where copies of the ledger go: a webhook that is sometimes out, and the database."""

import hashlib
import hmac
import json
import os
import sqlite3
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import jsonschema
import pytest

from own import OwnGateway, free_ports, until

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/entry.schema.json").read_text())


class Receiver(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        fields = dict(part.split("=") for part in self.headers["x-tollgate-signature"].split(","))
        want = hmac.new(b"shared", fields["t"].encode() + b"." + body, hashlib.sha256).hexdigest()
        assert fields["v1"] == want and abs(int(fields["t"]) - time.time()) < 60
        taken = self.server.taking
        if taken:
            entries = json.loads(body)["entries"]
            # The first few tell as much as all of them, and take less long.
            [jsonschema.validate(entry, SCHEMA) for entry in entries[:20]]
            self.server.entries += entries
        self.server.asked += 1
        self.send_response(204 if taken else 503)
        self.send_header("content-length", "0")
        self.end_headers()


@pytest.fixture
def receiver():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    server.entries, server.asked, server.taking = [], 0, True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


class Gateway(OwnGateway):
    def __init__(self, folder, receiver):
        mock, admin = free_ports(2)
        self.admin = f"http://127.0.0.1:{admin}"
        webhook = {"url": f"http://127.0.0.1:{receiver.server_port}/entries", "secret": "shared"}
        settings = {"admin": f"127.0.0.1:{admin}", "access_log": "off", "sinks": {"webhook": webhook}}
        super().__init__(folder, settings, mock=mock)

    def ask(self, times):
        body = {"model": "mock-small?input=1000&cached=0&output=100&reasoning=0", "messages": []}
        answers = [self.http.post("/v1/chat/completions", json=body) for _ in range(times)]
        assert {answer.status_code for answer in answers} == {200}
        return {answer.headers["x-gateway-request-id"] for answer in answers}

    def metric(self, name):
        lines = self.http.get(f"{self.admin}/metrics").text.splitlines()
        return next((int(line.split()[-1]) for line in lines if line.startswith(name)), 0)

    def database(self):
        database = sqlite3.connect(f"file:{self.folder}/usage.db?mode=ro", uri=True)
        try:
            return database.execute("SELECT request_id, outcome, micro_usd, pico_usd FROM entries JOIN lines ON entry = id").fetchall()
        finally:
            database.close()


def took_ms(gateway, requests=120):
    """How long each request takes, in their order. One caller: several threads of Python wait for one another."""
    took = []
    with httpx2.Client(base_url=gateway.url, trust_env=False) as http:
        for _ in range(requests):
            before = time.monotonic()
            assert http.post("/v1/chat/completions", json={"model": "mock-small", "messages": []}).status_code == 200
            took.append((time.monotonic() - before) * 1000)
    return sorted(took)


def rss_mib(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_a_sink_that_is_out_slows_nobody_and_takes_no_memory(tmp_path, receiver):
    with Gateway(tmp_path, receiver) as gateway:
        took_ms(gateway)
        before, took = rss_mib(gateway.process.pid), {True: [], False: []}
        # By turns, so that whatever else the machine does meets both.
        for _ in range(3):
            for receiver.taking in (False, True):
                took[receiver.taking] += took_ms(gateway)
        middle, late = ({taking: sorted(each)[int(len(each) * share)] for taking, each in took.items()} for share in (0.5, 0.99))
        print(f"while it is out {middle[False]:.1f} ms (p99 {late[False]:.1f}), while it takes entries {middle[True]:.1f} ms (p99 {late[True]:.1f})")
        # The slowest are the machine's; their order changes from run to run.
        assert middle[False] < 2 * middle[True] + 2 and late[False] < 4 * late[True] + 50
        assert rss_mib(gateway.process.pid) < before + 16
        # It is asked again after ever longer pauses.
        # Each arrives at least once: a post that was slow to be answered is repeated.
        arrived = lambda: len({entry["id"] for entry in receiver.entries})
        caught_up = lambda: arrived() == 840 and gateway.metric('tollgate_sink_lag_bytes{sink="webhook"}') == 0
        until(caught_up, arrived, seconds=90)


def test_entries_reach_every_sink_once_it_takes_them(tmp_path, receiver):
    receiver.taking = False
    with Gateway(tmp_path, receiver) as gateway:
        asked = gateway.ask(20)
        until(lambda: receiver.asked >= 2)
        # One that is out holds nobody up.
        asked |= gateway.ask(5)
        until(lambda: len(gateway.database()) == 25)
        assert receiver.entries == [] and gateway.metric('tollgate_sink_failures_total{sink="webhook"}') >= 2
        receiver.taking = True
        until(lambda: len(receiver.entries) == 25)
        assert {entry["request_id"] for entry in receiver.entries} == asked
        assert {(entry["outcome"], entry["total"]) for entry in receiver.entries} == {("ok", "1500000000")}
        until(lambda: gateway.metric('tollgate_sink_entries_total{sink="webhook"}') == 25)
        receiver.taking = False
        asked |= gateway.ask(3)
    receiver.taking = True
    # Another process goes on where that one stopped.
    with Gateway(tmp_path, receiver) as gateway:
        asked |= gateway.ask(1)
        until(lambda: {entry["request_id"] for entry in receiver.entries} == asked and len(gateway.database()) == 29)
        assert len({entry["id"] for entry in receiver.entries}) == len(receiver.entries) == 29
        assert {row[0] for row in gateway.database()} == asked
        assert {row[1:] for row in gateway.database()} == {("ok", 1500, 0)}
        rows = gateway.http.get(f"{gateway.admin}/usage", params={"by": "model,outcome", "since": "1h", "provider": "mock"}).json()
        assert [(row["model"], row["outcome"], row["requests"], row["pico_usd"]) for row in rows] == [("mock-small", "ok", 29, "43500000000")]
        table = gateway.http.get(f"{gateway.admin}/usage?by=provider&format=csv")
        assert table.text == "provider,requests,input,cached,output,unpriced,unmetered,estimated,incomplete,usd\r\nmock,29,29000,0,2900,0,0,0,0,0.0435\r\n"
        one = gateway.http.get(f"{gateway.admin}/usage/requests/{next(iter(asked))}").json()
        assert [(entry["outcome"], entry["total"]) for entry in one["entries"]] == [("ok", "1500000000")]
        assert gateway.http.get(f"{gateway.admin}/usage/requests/none").status_code == 404
        assert gateway.http.get(f"{gateway.admin}/usage?by=colour").status_code == 400
        # Before any sink could have it.
        [new] = gateway.ask(1)
        [entry] = gateway.http.get(f"{gateway.admin}/usage/requests/{new}").json()["entries"]
        assert entry["total"] == "1500000000"
        asked.add(new)
        usage = subprocess.run(
            [os.environ["TOLLGATE_BINARY"], "usage", "--data", tmp_path, "--json"], check=True, capture_output=True, text=True
        )
        [row] = json.loads(usage.stdout)
        assert (row["requests"], row["input"], row["usd"]) == (30, 30_000, "0.045")


def test_damage_in_the_ledger_is_told(tmp_path, receiver):
    receiver.taking = False
    with Gateway(tmp_path, receiver) as gateway:
        gateway.ask(3)
    # A disk that gives back something else than it took.
    segment = next(path for path in (tmp_path / "ledger").glob("*.jsonl") if path.stat().st_size)
    segment.write_bytes(segment.read_bytes().replace(b'"input":1000', b'"input":1001', 1))
    receiver.taking = True
    with Gateway(tmp_path, receiver) as gateway:
        until(lambda: len(receiver.entries) == 3)
        until(lambda: gateway.metric('tollgate_sink_damaged_lines_total{sink="webhook"}') == 1, gateway.said)
        assert gateway.metric('tollgate_sink_damaged_lines_total{sink="sqlite"}') == 0
        assert "sink webhook: damage in the ledger: 1 line" in gateway.said()
    assert sorted(entry.get("faults", []) for entry in receiver.entries) == [[], [], ["lost_record"]]
    assert sorted(entry.get("total", "") for entry in receiver.entries) == ["", "1500000000", "1500000000"]


def test_entries_say_for_whom_they_are(tmp_path, receiver):
    with Gateway(tmp_path, receiver) as gateway:
        for user, tags in [("u-1", "team-a, batch"), ("u-2", "team-a"), (None, None)]:
            headers = {} if tags is None else {"x-gateway-tags": tags}
            body = {"model": "mock-small?input=1000&cached=0&output=100&reasoning=0", "messages": [], "user": user}
            assert gateway.http.post("/v1/chat/completions", json=body, headers=headers).status_code == 200
        refused = gateway.http.post("/v1/chat/completions", json={"model": "mock-small", "messages": []}, headers={"x-gateway-tags": "t" * 65})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_tags")
        for by, want in {"user": {"u-1": 1, "u-2": 1, "-": 1}, "tag": {"team-a": 2, "batch": 1, "-": 1}}.items():
            rows = gateway.http.get(f"{gateway.admin}/usage?by={by}").json()
            assert {row[by]: row["requests"] for row in rows} == want
        until(lambda: len(receiver.entries) == 3)
        assert sorted((entry.get("user"), entry.get("tags")) for entry in receiver.entries if "user" in entry) == [
            ("u-1", ["team-a", "batch"]),
            ("u-2", ["team-a"]),
        ]
        # What the gateway is told stays here.
        database = sqlite3.connect(f"file:{tmp_path}/usage.db?mode=ro", uri=True)
        until(lambda: database.execute("SELECT count(*) FROM entries, json_each(tags) WHERE value = 'team-a'").fetchone() == (2,))
        database.close()
