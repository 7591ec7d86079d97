"""A gateway among bad neighbours: chaos.py BINARY SECONDS.

Its providers reset, stall, half-close, trickle and speak garbage; its callers leave, read slowly, stop in the middle and speak
garbage, too; its sink and its Redis are killed and come back; where mounts may be made, its disk is full for a while.

What must hold: it never panics nor grows, no descriptor leaks, every caller that stays has a whole answer, an error it can read
or a visible cut before its deadline, whatever a provider saw has its entry, closed, and the sink has each of them with the same charge.
"""

import asyncio
import collections
import json
import multiprocessing
import os
import random
import shutil
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

binary, seconds = sys.argv[1], int(sys.argv[2])
DEADLINE_S = 20
CALLERS = 24
# Of resident memory, from the second third of the run to its last; a short run is mostly warming up.
GROWTH_MAX = 1.05 if seconds >= 300 else 1.30
DESCRIPTORS_MAX = 64
# The disk: all that the gateway writes in the time has room, until it is filled.
DISK_MIB = 64 + seconds // 2

USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
DOCUMENT = {"id": "c", "object": "chat.completion", "model": "mock-small", "usage": USAGE,
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "x" * 300}}]}
EVENT = {"id": "c", "object": "chat.completion.chunk", "model": "mock-small", "choices": [{"index": 0, "delta": {"content": "x" * 200}}]}
LAST = EVENT | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": USAGE}
SSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"

dice = random.Random(7)
seen, told = set(), collections.Counter()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


def chunk(data):
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def document(status="200 OK", body=DOCUMENT, **more):
    body = json.dumps(body).encode()
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in more.items())
    return f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{head}\r\n".encode() + body


def reset(writer):
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def stream(writer, events, pause, cut=None):
    writer.write(SSE_HEAD)
    for at in range(events):
        writer.write(chunk(f"data: {json.dumps(EVENT)}\n\n".encode()))
        await writer.drain()
        if at == cut:
            return reset(writer)
        await asyncio.sleep(pause)
    writer.write(chunk(f"data: {json.dumps(LAST)}\n\ndata: [DONE]\n\n".encode()) + b"0\r\n\r\n")


async def trickle(writer, data):
    for at in range(0, len(data), 7):
        writer.write(data[at:at + 7])
        await writer.drain()
        await asyncio.sleep(0.002)


async def act(writer, streams):
    """One of what providers do; true if the connection is of use after it."""
    what = dice.choices(
        ["good", "good", "trickle", "slow", "refuse", "reset", "late reset", "half", "stall", "garbage", "endless", "interim"],
        [30, 20, 6, 6, 6, 4, 4, 4, 2, 4, 2, 2])[0]
    if what == "good" and streams:
        await stream(writer, dice.randrange(1, 60), 0)
    elif what in ("good", "slow"):
        await asyncio.sleep(0.3 if what == "slow" else 0)
        writer.write(document())
    elif what == "trickle":
        await trickle(writer, document())
    elif what == "refuse":
        writer.write(document(*dice.choice([("429 Too Many Requests",), ("500 Internal Server Error",), ("529 Overloaded",)]),
                              body={"error": {"message": "no", "type": "server_error"}}, retry_after=1))
    elif what == "late reset":
        await stream(writer, 20, 0.001, cut=dice.randrange(20))
        return False
    elif what == "half":
        writer.write(document()[:200])
        writer.write_eof()
        await asyncio.sleep(0.5)
        return False
    elif what == "stall":
        writer.write(SSE_HEAD + chunk(b"data: {}\n\n"))
        await asyncio.sleep(5)
        return False
    elif what == "garbage":
        writer.write(dice.randbytes(300))
        return False
    elif what == "endless":
        writer.write(b"HTTP/1.1 200 OK\r\nx-long: " + b"a" * 300_000)
        return False
    elif what == "interim":
        writer.write(b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 5 + document())
    else:
        reset(writer)
        return False
    await writer.drain()
    return True


async def provide(reader, writer):
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
            body = await reader.readexactly(int(fields.get("content-length", 0)))
            seen.add(fields["x-request-id"])
            if not await act(writer, b'"stream": true' in body):
                break
    except (asyncio.IncompleteReadError, OSError, asyncio.LimitOverrunError):
        pass
    finally:
        writer.close()


class Cut(Exception):
    """The answer ended before its end, as its reader can tell."""


async def answer(reader, pause=0):
    """Status and body of a whole answer."""
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            status = int(head.split(" ", 2)[1])
            if status >= 200:
                break
        fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
        if "chunked" not in fields.get("transfer-encoding", ""):
            return status, await reader.readexactly(int(fields["content-length"]))
        body = b""
        while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
            body += (await reader.readexactly(size + 2))[:-2]
            await asyncio.sleep(pause)
        await reader.readuntil(b"\r\n")
        return status, body
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise Cut from error


def request(streams, size=200):
    body = json.dumps({"model": "best", "messages": [{"role": "user", "content": "x" * size}]} | ({"stream": True} if streams else {})).encode()
    return b"POST /v1/chat/completions HTTP/1.1\r\nhost: chaos.test\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body


def judge(status, body, streams):
    """A whole answer is one that can be read."""
    if status == 200 and streams and body.startswith(b"data:"):
        assert body.endswith(b"data: [DONE]\n\n"), body[-80:]
    else:
        json.loads(body)
    told[status] += 1


async def behave(port):
    """One of what callers do."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    streams = dice.random() < 0.5
    what = dice.choices(["stay", "slow", "leave", "leave late", "stop", "garbage", "smuggle", "long"], [50, 4, 8, 8, 4, 6, 4, 4])[0]
    try:
        if what == "stay":
            for _ in range(dice.randrange(1, 10)):
                writer.write(request(streams, dice.choice([10, 1000, 200_000])))
                judge(*await answer(reader), streams)
        elif what == "slow":
            writer.write(request(True))
            judge(*await answer(reader, 0.02), True)
        elif what in ("leave", "leave late"):
            writer.write(request(streams))
            await asyncio.sleep(0 if what == "leave" else dice.random() * 0.1)
            reset(writer)
        elif what == "stop":
            writer.write(request(False, 50_000)[:20_000])
            await asyncio.sleep(0.5)
        elif what == "garbage":
            writer.write(dice.randbytes(dice.randrange(1, 2000)) + b"\r\n\r\n")
            # It may be the beginning of something: nobody need answer.
            await asyncio.sleep(0.1)
        elif what == "smuggle":
            writer.write(request(False).replace(b"\r\n\r\n", b"\r\ntransfer-encoding: chunked\r\n\r\n", 1))
            await reader.read()
        else:
            writer.write(b"POST / HTTP/1.1\r\nhost: chaos.test\r\nx: " + b"a" * 2_000_000 + b"\r\n\r\n")
            await reader.read()
    except Cut:
        told["cut"] += 1
    finally:
        writer.close()


async def call(port, until):
    while time.monotonic() < until:
        try:
            async with asyncio.timeout(DEADLINE_S):
                await behave(port)
        except ConnectionError:
            told["closed"] += 1


def rss_kib(pid):
    return int(next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")).split()[1])


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


class Receiver(BaseHTTPRequestHandler):
    """Writes down the id and the charge of every entry before it says that it has them."""

    def log_message(self, *_):
        pass

    def do_POST(self):
        entries = json.loads(self.rfile.read(int(self.headers["content-length"])))["entries"]
        with open(self.server.path, "a") as file:
            # In one write, for it may be killed at any time.
            file.write("".join(f"\n{entry['id']} {entry.get('total')}\n" for entry in entries))
        self.send_response(204)
        self.end_headers()


def receive(port, path):
    server = ThreadingHTTPServer(("127.0.0.1", port), Receiver)
    server.path = path
    server.serve_forever()


class Sink:
    """The server of the sink, a process of its own."""

    def __init__(self, folder):
        self.port, self.path = free_port(), folder / "received"
        self.path.touch()
        self.start()

    def start(self):
        self.process = multiprocessing.get_context("spawn").Process(target=receive, args=(self.port, self.path), daemon=True)
        self.process.start()
        while socket.socket().connect_ex(("127.0.0.1", self.port)):
            assert self.process.is_alive(), "the sink's server could not take its port again"
            time.sleep(0.05)

    def kill(self):
        self.process.kill()
        self.process.join()

    def received(self):
        """Charges by entry; one that came twice is the same twice."""
        charges = {}
        for line in self.path.read_text().splitlines():
            match line.split(" "):
                case [id, charge] if len(id) == 36:
                    assert charges.setdefault(id, charge) == charge, f"{id} is {charges[id]} and {charge}"
        return charges


class Redis:
    """Killed and started anew; none where it is not installed."""

    def __init__(self, folder):
        self.folder, self.port = folder, free_port()
        self.command = shutil.which("redis-server")
        self.start()

    def start(self):
        options = ["--port", str(self.port), "--save", "", "--dir", str(self.folder), "--bind", "127.0.0.1"]
        self.process = self.command and subprocess.Popen([self.command, *options], stdout=subprocess.DEVNULL)

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()


async def disturb(pid, redis, sink, data, mounted, until):
    """Takes away what the gateway leans on, one after the other, and gives it back."""
    while time.monotonic() < until:
        await asyncio.sleep(1.5)
        sink.kill()
        redis.kill()
        await asyncio.sleep(1)
        filler = Path(f"/proc/{pid}/root{data}/filler")
        if mounted:
            with filler.open("wb", buffering=0) as file:
                try:
                    while file.write(b"x" * 65_536):
                        pass
                except OSError:
                    pass
            await asyncio.sleep(1)
            filler.unlink()
        redis.start()
        sink.start()


async def main():
    folder = Path(tempfile.mkdtemp(prefix="tollgate-chaos-"))
    port, provider = free_port(), await asyncio.start_server(provide, "127.0.0.1", 0)
    at, redis, sink = provider.sockets[0].getsockname()[1], Redis(folder), Sink(folder)
    data, log = folder / "data", open(folder / "log", "w")
    data.mkdir()
    upstream = {"base_url": f"http://127.0.0.1:{at}/v1", "prices": "mock"}
    settings = {
        "listen": [f"127.0.0.1:{port}"], "admin": "off", "mock": "off", "data": str(data), "access_log": "off",
        "hosts": ["chaos.test"], "environment_providers": False, "providers": {"a": upstream, "b": upstream}, "aliases": {"best": ["a/mock-small", "b/mock-small"]},
        "retry": {"again": 1, "delay": "10ms", "eject_after": 1000, "budget": "100%"},
        "timeouts": {"body": "1s", "connect": "1s", "upstream_read": "2s", "downstream_write": "2s"},
        "sinks": {"webhook": {"url": f"http://127.0.0.1:{sink.port}/"}}, "ledger": {"segment_bytes": "256KiB", "sync": "200ms"},
    }
    if redis.process:
        settings |= {"redis": {"url": f"redis://127.0.0.1:{redis.port}", "on_failure": "open", "timeout": "100ms"},
                     "limits": [{"requests_per_minute": 100_000_000, "per": "all"}]}
    config = folder / "tollgate.yaml"
    config.write_text(json.dumps(settings))
    mount = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs -o size={DISK_MIB}m tmpfs {data} && exec "$@"', "sh"]
    mounted = subprocess.run([*mount, "true"], capture_output=True).returncode == 0
    command = [binary, "-c", str(config)]
    gateway = subprocess.Popen([*mount, *command] if mounted else command, stderr=log, stdout=log)
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            assert gateway.poll() is None, (folder / "log").read_text()
            await asyncio.sleep(0.05)
    until = time.monotonic() + seconds
    idle = descriptors(gateway.pid)
    callers = [asyncio.create_task(call(port, until)) for _ in range(CALLERS)]
    disturbing = asyncio.create_task(disturb(gateway.pid, redis, sink, data, mounted, until - 2))
    # The middle of many: at a moment some large prompts may be held.
    sizes = []
    while time.monotonic() < until:
        await asyncio.sleep(0.25)
        sizes.append(rss_kib(gateway.pid))
    await asyncio.gather(*callers)
    await disturbing
    early, late = (int(statistics.median(third)) for third in (sizes[len(sizes) // 3 : -len(sizes) // 3], sizes[-len(sizes) // 3 :]))
    # Pooled connections to the provider, and those of callers that are yet to be noticed.
    provider.close()
    limit = time.monotonic() + 15
    while (left := descriptors(gateway.pid)) > idle + DESCRIPTORS_MAX and time.monotonic() < limit:
        await asyncio.sleep(0.2)
    entries = {}
    root = Path(f"/proc/{gateway.pid}/root{data}")
    await asyncio.sleep(2.5)
    for path in (root / "ledger").glob("*.jsonl"):
        for line in path.read_bytes().splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                # A line that a full disk tore; it stands there whole after it.
                continue
            known = entries.setdefault(record["id"], {})
            if record.get("reading", 0) >= known.get(record["record"], {}).get("reading", 0):
                known[record["record"]] = record
    closed = {id: entry.get("usage", {}).get("total") for id, entry in entries.items() if "close" in entry}
    limit = time.monotonic() + 60
    while len(received := sink.received()) < len(closed) and time.monotonic() < limit:
        await asyncio.sleep(0.2)
    gateway.terminate()
    assert await asyncio.to_thread(gateway.wait, 30) == 0, "the gateway did not leave well"
    redis.kill()
    sink.kill()
    print(f"{sum(told.values())} answers: {dict(told.most_common())}; {len(seen)} requests reached a provider; disk filled: {mounted}, "
          f"Redis: {bool(redis.command)}; {len(received)} entries at the sink; resident {early} → {late} KiB; descriptors {idle} → {left}")
    assert "panicked" not in (folder / "log").read_text(), (folder / "log").read_text()[-2000:]
    asked = {entry["open"]["request_id"] for entry in entries.values() if "open" in entry}
    assert seen <= asked, f"{len(seen - asked)} requests reached a provider and have no entry, such as {list(seen - asked)[:3]}"
    unclosed = [entry for entry in entries.values() if "close" not in entry]
    assert not unclosed, f"{len(unclosed)} entries are not closed, such as {unclosed[0]}"
    differing = {id for id in closed.keys() | received.keys() if str(closed.get(id, "?")) != received.get(id)}
    assert not differing, f"{len(differing)} of {len(closed)} entries came otherwise to the sink, such as {[(id, closed.get(id), received.get(id)) for id in differing][:3]}"
    assert told[200] > 20 * seconds / 3 and told["cut"] and len(told) > 3, told
    assert late <= early * GROWTH_MAX, f"resident memory grew from {early} to {late} KiB"
    assert left <= idle + DESCRIPTORS_MAX, f"{left} descriptors, {idle} when idle"
    shutil.rmtree(folder)


if __name__ == "__main__":
    asyncio.run(main())
