"""Drives the benchmark; see run.sh. Standard library only."""

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

mode, tollgate, bare, oha, threads = sys.argv[1:6]
SMOKE = mode == "smoke"
ROUNDS = 1 if SMOKE else 5
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(*command, cwd=None):
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait(port):
    for _ in range(2000):
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    sys.exit(f"nothing listens on {port}")


def cpu_s(pid):
    """User and system seconds, from the scheduler's nanoseconds of every thread."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/schedstat") as f:
                total += int(f.read().split()[0])
        except FileNotFoundError:
            pass
    return total / 1e9


def rss_kib(pid):
    with open(f"/proc/{pid}/statm") as f:
        return int(f.read().split()[1]) * PAGE / 1024


def load(port, body, connections, requests):
    """One oha run: requests per second and latencies in milliseconds."""
    out = subprocess.run(
        [oha, "--no-tui", "--output-format", "json", "-n", str(requests), "-c", str(connections), "-m", "POST",
         "-H", "content-type: application/json", "-d", body, f"http://127.0.0.1:{port}/v1/chat/completions"],
        check=True, capture_output=True, text=True)
    result = json.loads(out.stdout)
    codes = result["statusCodeDistribution"]
    if set(codes) != {"200"} or result["summary"]["successRate"] != 1:
        sys.exit(f"the load was not answered: {codes} {result.get('errorDistribution')}")
    latency = result["latencyPercentiles"]
    return result["summary"]["requestsPerSec"], latency["p50"] * 1e3, latency["p99"] * 1e3


def ask(model, stream=False, prompt=900):
    text = json.dumps({"model": model, "messages": [{"role": "user", "content": "x" * prompt}]})
    # A caller that asks for usage gets it from bare Pingora too, so that both carry the same bytes.
    return text[:-1] + ', "stream": true, "stream_options": {"include_usage": true}}' if stream else text


class Proxy:
    def __init__(self, name, port, process):
        self.name, self.port, self.process = name, port, process

    def measure(self, body, connections, requests):
        before = cpu_s(self.process.pid)
        rate, p50, p99 = load(self.port, body, connections, requests)
        return {"cpu_us": (cpu_s(self.process.pid) - before) / requests * 1e6, "rate": rate, "p50": p50, "p99": p99}


def hold(port, body, count):
    """Opens streams that stay idle after their head and first event; returns their sockets."""
    request = (f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
               f"content-length: {len(body)}\r\n\r\n{body}").encode()
    sockets = []
    for _ in range(count):
        s = socket.create_connection(("127.0.0.1", port))
        s.sendall(request)
        sockets.append(s)
    for s in sockets:
        s.settimeout(30)
        if not s.recv(4096).startswith(b"HTTP/1.1 200"):
            sys.exit("an idle stream was not answered")
    return sockets


def idle_kib(proxy, count):
    """Resident memory per open idle stream after a prompt of 100 KB."""
    body = ask("mock-small?chunks=2&delay_ms=600000", stream=True, prompt=100_000)
    # The mock's first event comes at once; the pieces wait.
    before = rss_kib(proxy.process.pid)
    sockets = hold(proxy.port, body, count)
    # Both give freed memory back within a second or two.
    time.sleep(4)
    grown = (rss_kib(proxy.process.pid) - before) / count
    for s in sockets:
        s.close()
    return grown


def median(rounds, key):
    return statistics.median(r[key] for r in rounds)


def spread(rounds, key):
    values = [r[key] for r in rounds]
    return f"{min(values):.1f}–{max(values):.1f}"


def main():
    scratch = tempfile.mkdtemp(prefix="tollgate-bench-")
    mock, gate, floor = free_port(), free_port(), free_port()
    config = os.path.join(scratch, "tollgate.yaml")
    with open(config, "w") as f:
        f.write(f"listen: ['127.0.0.1:{gate}']\nadmin: off\nmock: off\nworkers: {threads}\ndata: {scratch}/data\n"
                f"access_log: {scratch}/access.log\nenvironment_providers: false\nsinks: {{sqlite: false}}\n"
                f"providers: {{mock: {{base_url: 'http://127.0.0.1:{mock}/v1'}}}}\n")
    processes = [start(tollgate, "mock", "--listen", f"127.0.0.1:{mock}"), start(bare, f"127.0.0.1:{floor}", f"127.0.0.1:{mock}", threads),
                 start(tollgate, "-c", config)]
    try:
        for port in (mock, gate, floor):
            wait(port)
        proxies = [Proxy("bare Pingora", floor, processes[1]), Proxy("tollgate", gate, processes[2])]
        report(proxies, *run(proxies))
    finally:
        for process in processes:
            process.kill()
        shutil.rmtree(scratch)


# 1 KiB of answer.
SHORT = "mock-small?chunks=1&bytes=600"
EVENTS = 400


def run(proxies):
    requests, streams = (200, 8) if SMOKE else (20_000, 160)
    scenarios = [
        ("1 KiB answer, 16 connections", ask(SHORT), 16, requests, 1),
        ("1 KiB answer, 64 connections", ask(SHORT), 64, requests, 1),
        (f"stream of {EVENTS} events, 16 at once", ask(f"mock-small?chunks={EVENTS}", stream=True), 16, streams, EVENTS),
    ]
    for proxy in proxies:
        for _, body, connections, count, _ in scenarios:
            proxy.measure(body, connections, max(connections, count // 10))
    rows = []
    for name, body, connections, count, per in scenarios:
        rounds = {proxy.name: [] for proxy in proxies}
        for turn in range(ROUNDS):
            for proxy in proxies if turn % 2 == 0 else proxies[::-1]:
                rounds[proxy.name].append(proxy.measure(body, connections, count))
        rows.append((name, per, rounds))
    count = 20 if SMOKE else 500
    memory = {proxy.name: idle_kib(proxy, count) for proxy in proxies}
    return rows, memory, count


def report(proxies, rows, memory, count):
    unit = {1: "request"}
    lines = ["| | CPU µs | range | requests/s | p50 ms | p99 ms | CPU ratio |", "|---|---|---|---|---|---|---|"]
    for name, per, rounds in rows:
        floor = median(rounds[proxies[0].name], "cpu_us")
        for proxy in proxies:
            r = rounds[proxy.name]
            for one in r:
                one["each"] = one["cpu_us"] / per
            cpu = median(r, "cpu_us")
            lines.append(f"| {name}: {proxy.name} | {cpu / per:.2f} per {unit.get(per, 'event')} | {spread(r, 'each')} | "
                         f"{median(r, 'rate'):,.0f} | {median(r, 'p50'):.2f} | {median(r, 'p99'):.2f} | {cpu / floor:.2f} |")
    floor = memory[proxies[0].name]
    for proxy in proxies:
        lines.append(f"| {count} idle streams after a 100 KB prompt: {proxy.name} | {memory[proxy.name]:.1f} KiB each | | | | | {memory[proxy.name] - floor:+.1f} KiB |")
    head = [f"{os.cpu_count()} cores, {threads} thread{'s' if threads != '1' else ''} each, {ROUNDS} alternating rounds, medians; "
            f"load average {os.getloadavg()[0]:.2f}; mock and load generator on the same machine.", ""]
    text = "\n".join(head + lines) + "\n"
    print(text)
    if not SMOKE:
        os.makedirs("bench/results", exist_ok=True)
        with open("bench/results/latest.md", "w") as f:
            f.write(text)


main()
