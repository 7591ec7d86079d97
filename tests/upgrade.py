"""Replaces a gateway by another under load, again and again: upgrade.py BINARY UPGRADES [STREAMS [OHA]]. HTTP/2 is
among it where there is Node, WebSockets where there is the package websockets. With oha, half of what the gateway can
take comes besides, at a fixed rate and each request on a connection of its own.

What must hold: no request fails, no stream and no turn is cut, on kept-alive and on new connections, in plain and over TLS; each
old process is gone within two seconds of its last stream; each request has its entry. A successor whose configuration is refused changes nothing, nor does SIGQUIT without one. A
kept-alive connection that is closed before it carried a byte of the request is no failure; nor is a WebSocket that is
closed between two turns.
"""

import http.client
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

try:
    from websockets.exceptions import ConnectionClosed
    from websockets.sync.client import connect as open_socket
except ImportError:
    open_socket = None

GONE_S = 2
STREAM_S = 8
# Of these a chunk a second.
CHUNKS = 8
REQUEST_EVERY_S = 0.02
CLIENTS = 8
# Listeners beside the two that are asked; all are handed over.
OTHERS = 190
# Turns of a WebSocket take about half a second.
SOCKETS = 6
TURN = {"type": "response.create", "model": "mock-small?chunks=10&delay_ms=50", "input": "Hi"}

binary, upgrades = sys.argv[1], int(sys.argv[2])
STREAMS = int(sys.argv[3]) if len(sys.argv) > 3 else 40
oha = sys.argv[4] if len(sys.argv) > 4 else None
ASKED = json.dumps({"model": "mock-small?chunks=1", "messages": []})


def free_ports(count):
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def wait_for(port, process):
    until = time.monotonic() + 30
    while True:
        assert process.poll() is None and time.monotonic() < until, "the gateway did not start"
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.request("GET", "/")
            return connection.getresponse().read()
        except OSError:
            time.sleep(0.02)


class Load:
    """Asks without pause until told to stop, and counts."""

    def __init__(self, plain, tls):
        self.ports = {False: plain, True: tls}
        self.stop, self.lock = threading.Event(), threading.Lock()
        self.done, self.streams, self.reopened, self.failures, self.ids = 0, 0, 0, [], set()
        self.trust = ssl.create_default_context()
        self.trust.check_hostname, self.trust.verify_mode = False, ssl.CERT_NONE
        asking = [threading.Thread(target=self.ask, args=(at % 2 == 0, at % 4 < 2)) for at in range(CLIENTS)]
        streaming = [threading.Thread(target=self.keep_streaming, args=(at % 2 == 0, at)) for at in range(STREAMS)]
        self.turns, self.parted, self.multiplexed = 0, 0, None
        talking = [threading.Thread(target=self.talk) for _ in range(SOCKETS if open_socket else 0)]
        self.threads = asking + streaming + talking
        script = Path(__file__).with_name("multiplex.mjs")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.node = subprocess.Popen(["node", script, str(tls)], **pipes) if shutil.which("node") else None
        [thread.start() for thread in self.threads]

    def connect(self, tls):
        port = self.ports[tls]
        if tls:
            return http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=self.trust)
        return http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def fail(self, what):
        with self.lock:
            self.failures.append(what)

    def post(self, connection, body):
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"content-type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status == 200, f"status {answer.status}: {text[:200]}"
        with self.lock:
            self.ids.add(answer.headers["x-gateway-request-id"])
        return text

    def ask(self, tls, keeps):
        connection, used = self.connect(tls), False
        while not self.stop.is_set():
            try:
                self.post(connection, {"model": "mock-small", "messages": []})
                self.done += 1
                used = True
                if not keeps:
                    connection.close()
                    connection, used = self.connect(tls), False
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError, ssl.SSLEOFError) as error:
                if used:
                    self.reopened += 1
                else:
                    self.fail(f"request: {error!r}")
                connection.close()
                connection, used = self.connect(tls), False
            except Exception as error:
                self.fail(f"request: {error!r}")
                connection.close()
                connection, used = self.connect(tls), False
            time.sleep(REQUEST_EVERY_S)

    def keep_streaming(self, tls, at):
        time.sleep(at * STREAM_S / STREAMS)
        model = f"mock-small?chunks={CHUNKS}&delay_ms={STREAM_S * 1000 // CHUNKS}"
        while not self.stop.is_set():
            try:
                text = self.post(self.connect(tls), {"model": model, "messages": [], "stream": True})
                assert text.endswith(b"data: [DONE]\n\n"), "the stream was cut"
                self.streams += 1
            except Exception as error:
                self.fail(f"stream: {error!r}")

    def talk(self):
        """Turn after turn on a connection, until it ends between two."""
        while not self.stop.is_set():
            turns = 0
            try:
                with open_socket(f"ws://127.0.0.1:{self.ports[False]}/v1/responses", proxy=None) as socket:
                    while not self.stop.is_set():
                        socket.send(json.dumps(TURN))
                        kind, turn = None, turns
                        while kind != "response.completed":
                            kind = json.loads(socket.recv(timeout=30))["type"]
                            turns = turn + 0.5
                        turns = turn + 1
                        with self.lock:
                            self.turns += 1
            except ConnectionClosed as error:
                if turns == int(turns) and turns:
                    self.parted += error.rcvd is not None and error.rcvd.code == 1012
                else:
                    self.fail(f"turn {turns}: {error!r}")
            except Exception as error:
                self.fail(f"turn {turns}: {error!r}")

    def end(self):
        self.stop.set()
        if self.node:
            self.multiplexed = json.loads(self.node.communicate(timeout=60)[0])
            self.ids |= set(self.multiplexed["ids"])
            self.failures += [f"HTTP/2: {failure}" for failure in self.multiplexed["failures"]]
        [thread.join() for thread in self.threads]


class Flood:
    """Half of what the gateway can take, at a fixed rate; no answer is waited for before the next request."""

    def __init__(self, port):
        self.url = f"http://127.0.0.1:{port}/v1/chat/completions"
        self.rate = int(self.result(self.start("-z", "4s", "-c", "32"))["summary"]["requestsPerSec"]) // 2
        self.process = self.start("-z", "1h", "-q", str(self.rate), "-c", "256")

    def start(self, *options):
        fixed = ["--no-tui", "--output-format", "json", "--disable-keepalive", "-m", "POST", "-H", "content-type: application/json", "-d", ASKED]
        return subprocess.Popen([oha, *fixed, *options, self.url], stdout=subprocess.PIPE, text=True)

    def result(self, process):
        return json.loads(process.communicate(timeout=60)[0])

    def end(self):
        """How many were answered, and what went wrong; what was under way at the end was cut off by it."""
        self.process.send_signal(signal.SIGINT)
        result = self.result(self.process)
        errors = {why: count for why, count in result["errorDistribution"].items() if "deadline" not in why}
        wrong = {code: count for code, count in result["statusCodeDistribution"].items() if code != "200"}
        return result["statusCodeDistribution"].get("200", 0), errors | wrong


def wait_until(holds, why):
    until = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < until, why
        time.sleep(0.05)


def children(of):
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = path.read_text().split(" (", 1)
        except FileNotFoundError:
            continue
        found += [int(pid)] if int(rest.rsplit(")", 1)[1].split()[1]) == of else []
    return found


class Adopted:
    """A gateway that another one started: nobody's child once that is gone."""

    def __init__(self, pid):
        self.pid = pid

    def terminate(self):
        os.kill(self.pid, signal.SIGTERM)

    def wait(self, timeout):
        def gone():
            try:
                os.kill(self.pid, 0)
            except ProcessLookupError:
                return True
            return Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"

        wait_until(gone, "the last gateway does not leave")
        return 0


def main():
    folder = Path(tempfile.mkdtemp(prefix="tollgate-upgrade-"))
    key, cert = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
         "/CN=localhost", "-keyout", key, "-out", cert], check=True, capture_output=True)
    plain, tls, mock, *others = free_ports(3 + OTHERS)
    settings = {
        "listen": [*(f"127.0.0.1:{port}" for port in others), f"127.0.0.1:{plain}", {"address": f"127.0.0.1:{tls}", "tls": {"cert": str(cert), "key": str(key)}}],
        "admin": "off", "mock": "off", "data": str(folder / "data"), "access_log": "off", "environment_providers": False,
        "providers": {"mock": {"base_url": f"http://127.0.0.1:{mock}/v1"}},
    }
    config, broken, log = folder / "tollgate.yaml", folder / "broken.yaml", open(folder / "log", "w")
    config.write_text(json.dumps(settings))
    broken.write_text(json.dumps(settings | {"limitz": []}))
    # Where a new version is put over the old one, which is gone from there while it runs.
    installed = folder / "tollgate"
    shutil.copy(binary, installed)
    start = lambda *options: subprocess.Popen([installed, *options], stderr=log, stdout=log)
    upstream = start("mock", "--listen", f"127.0.0.1:{mock}")
    wait_for(mock, upstream)
    old = start("-c", config)
    wait_for(plain, old)
    flood = Flood(plain) if oha else None
    load = Load(plain, tls)
    slowest, silent = 0, []
    try:
        # Nobody is there to take over: it serves on.
        old.send_signal(signal.SIGQUIT)
        assert start("-c", broken, "--upgrade").wait(30) != 0, "a refused configuration must end its process"
        time.sleep(1)
        assert old.poll() is None
        # What it starts itself is refused, too.
        config.write_text(broken.read_text())
        old.send_signal(signal.SIGUSR2)
        wait_until(lambda: "SIGUSR2" in (folder / "log").read_text(), "a successor that ends is told of")
        assert old.poll() is None
        config.write_text(json.dumps(settings))
        for at in range(upgrades):
            time.sleep(1)
            # Who says nothing is waited for no longer.
            silent.append(socket.create_connection(("127.0.0.1", plain)))
            new = start("-c", config, "--upgrade")
            time.sleep(1.5)
            assert new.poll() is None, "the successor died"
            asked = time.monotonic()
            old.send_signal(signal.SIGQUIT)
            old.wait(STREAM_S + GONE_S + 20)
            took = time.monotonic() - asked
            slowest = max(slowest, took - STREAM_S)
            print(f"upgrade {at + 1}: the old process was gone after {took:.1f} s", flush=True)
            old = new
        # At last it replaces itself, by what lies where its binary did.
        # A socket that one left who waited in vain is in nobody's way.
        with socket.socket(socket.AF_UNIX) as left_behind:
            left_behind.bind(str(folder / "data/run/upgrade.sock"))
        installed.unlink()
        shutil.copy(binary, installed)
        asked = time.monotonic()
        old.send_signal(signal.SIGUSR2)
        wait_until(lambda: children(old.pid), "a successor is started")
        [pid] = children(old.pid)
        old.wait(STREAM_S + GONE_S + 20)
        slowest = max(slowest, time.monotonic() - asked - STREAM_S)
        print(f"the old process replaced itself by {pid} and was gone after {time.monotonic() - asked:.1f} s", flush=True)
        old = Adopted(pid)
        for port in others:
            socket.create_connection(("127.0.0.1", port)).close()
    finally:
        flooded = flood.end() if flood else None
        load.end()
        old.terminate()
        left = old.wait(30)
        upstream.kill()
    if flooded:
        print(f"{flooded[0]} requests at {flood.rate} a second, wrong: {flooded[1] or 'nothing'}")
        assert flooded[0] > flood.rate and not flooded[1]
    print(f"{load.done} requests, {load.streams} streams, {load.reopened} kept-alive connections closed between requests")
    if open_socket:
        print(f"{load.turns} turns, {load.parted} WebSockets told to come again")
        assert load.turns > 20 and load.parted
    if load.multiplexed:
        print(f"{load.multiplexed['answered']} requests over HTTP/2, {load.multiplexed['goodbyes']} connections told to end")
        assert load.multiplexed["answered"] > 20 and load.multiplexed["goodbyes"] >= upgrades
    if not (open_socket and load.multiplexed):
        print("not tried: what needs the package websockets, or Node")
    assert left == 0
    assert not load.failures, f"{len(load.failures)} failures, such as {load.failures[:5]}"
    assert load.done > 100 and load.streams > STREAMS / 2
    assert slowest <= GONE_S, f"an old process stayed {slowest:.1f} s too long"
    entries = {}
    for path in (folder / "data/ledger").glob("*.jsonl"):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            entries.setdefault(record["id"], {})[record["record"]] = record
    closed = {entry["open"]["request_id"] for entry in entries.values() if "usage" in entry and entry.get("close", {}).get("outcome") == "ok"}
    assert load.ids <= closed, f"{len(load.ids - closed)} requests have no entry"
    assert "panicked" not in (folder / "log").read_text()


main()
