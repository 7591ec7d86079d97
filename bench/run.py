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
probe = os.path.join(os.path.dirname(bare), "probe")
SMOKE = mode == "smoke"
# Its proxy answers in milliseconds: fewer requests tell as much.
LITELLM = os.environ.get("LITELLM")
# Without these LiteLLM's proxy asks for a key of its own, and for prices from the network.
ENVIRONMENT = os.environ | {"LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
ROUNDS = 1 if SMOKE else 5
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def start(*command, cwd=None):
    return subprocess.Popen(command, cwd=cwd, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait(port):
    # A minute: LiteLLM takes ten seconds and more.
    for _ in range(6000):
        with socket.socket() as s:
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.01)
    sys.exit(f"nothing listens on {port}")


def family(pid):
    """A process and those it started."""
    found = [pid]
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children") as f:
            found += [one for child in f.read().split() for one in family(int(child))]
    return found


def cpu_s(pid):
    """User and system seconds, from the scheduler's nanoseconds of every thread."""
    total = 0
    for one in family(pid):
        for task in os.listdir(f"/proc/{one}/task"):
            try:
                with open(f"/proc/{one}/task/{task}/schedstat") as f:
                    total += int(f.read().split()[0])
            except FileNotFoundError:
                pass
    return total / 1e9


def rss_kib(pid):
    total = 0
    for one in family(pid):
        with open(f"/proc/{one}/statm") as f:
            total += int(f.read().split()[1]) * PAGE / 1024
    return total


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
    def __init__(self, name, port, command, share=1):
        self.name, self.port, self.command, self.share = name, port, command, share

    def start(self):
        self.process = start(*self.command)

    def measure(self, body, connections, requests):
        requests = max(connections, int(requests * self.share))
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


def others(scratch, upstream):
    """Proxies that are installed, set up to do no more than pass on, with as many threads."""
    found = []
    if nginx := shutil.which("nginx"):
        port, path = free_port(), os.path.join(scratch, "nginx.conf")
        with open(path, "w") as f:
            user = "user root;" if os.geteuid() == 0 else ""
            f.write(f"{user} daemon off; worker_processes {threads}; pid {scratch}/nginx.pid; error_log /dev/null; events {{ worker_connections 8192; }}\n"
                    f"http {{ access_log off; keepalive_requests 1000000; client_body_buffer_size 1m; client_body_temp_path {scratch}/body; proxy_temp_path {scratch}/proxy;\n"
                    f"fastcgi_temp_path {scratch}/f; uwsgi_temp_path {scratch}/u; scgi_temp_path {scratch}/s;\n"
                    f"upstream up {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 1000000; }}\n"
                    f"server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection '';\n"
                    f"proxy_buffering off; }} }} }}\n")
        found.append(Proxy("nginx", port, [nginx, "-e", "stderr", "-c", path]))
    if haproxy := shutil.which("haproxy"):
        port, path = free_port(), os.path.join(scratch, "haproxy.cfg")
        with open(path, "w") as f:
            f.write(f"global\n nbthread {threads}\n maxconn 8000\ndefaults\n mode http\n timeout connect 5s\n timeout client 1h\n timeout server 1h\n"
                    f" option http-no-delay\nfrontend f\n bind 127.0.0.1:{port}\n default_backend b\nbackend b\n server s 127.0.0.1:{upstream} pool-max-conn 1024\n")
        found.append(Proxy("HAProxy", port, [haproxy, "-db", "-f", path]))
    if LITELLM:
        port, path = free_port(), os.path.join(scratch, "litellm.yaml")
        with open(path, "w") as f:
            json.dump({"model_list": [{"model_name": "*", "litellm_params": {"model": "openai/*", "api_base": f"http://127.0.0.1:{upstream}/v1", "api_key": "none"}}]}, f)
        found.append(Proxy("LiteLLM", port, [LITELLM, "--config", path, "--host", "127.0.0.1", "--port", str(port), "--num_workers", threads], share=0.02))
    return found


def own(scratch, name, upstream):
    port, config = free_port(), os.path.join(scratch, f"{name}.yaml")
    with open(config, "w") as f:
        f.write(f"listen: ['127.0.0.1:{port}']\nadmin: off\nmock: off\nworkers: {threads}\ndata: {scratch}/{name}\n"
                f"access_log: {scratch}/{name}.log\nenvironment_providers: false\nsinks: {{sqlite: false}}\n"
                f"providers: {{mock: {{base_url: 'http://127.0.0.1:{upstream}/v1'}}}}\n")
    return Proxy("tollgate", port, [tollgate, "-c", config])


def pass_through(upstream):
    port = free_port()
    return Proxy("bare Pingora", port, [bare, f"127.0.0.1:{port}", f"127.0.0.1:{upstream}", threads])


def main():
    scratch = tempfile.mkdtemp(prefix="tollgate-bench-")
    mock, probed = free_port(), free_port()
    provider = start(tollgate, "mock", "--listen", f"127.0.0.1:{mock}")
    proxies = [pass_through(mock), own(scratch, "gate", mock), *others(scratch, mock)]
    # For delays the upstream is the one who measures.
    delayed = [pass_through(probed), own(scratch, "delayed", probed)]
    try:
        wait(mock)
        for proxy in proxies + delayed:
            proxy.start()
        for proxy in proxies + delayed:
            wait(proxy.port)
        rows, memory, count = run(proxies)
        report(proxies, rows, memory, count, delays(probed, delayed))
    finally:
        for process in [provider, *[proxy.process for proxy in proxies + delayed if hasattr(proxy, "process")]]:
            process.terminate()
        time.sleep(0.5)
        provider.kill()
        shutil.rmtree(scratch, ignore_errors=True)


def delays(upstream, proxies):
    """Microseconds that events take, by number of streams and proxy; without a proxy, too. Each event comes alone."""
    found = {}
    ways = [("no proxy", upstream), *[(proxy.name, proxy.port) for proxy in proxies]]
    for streams in (1, 16) if SMOKE else (1, 16, 64, 1000):
        rounds = {name: [] for name, _ in ways}
        for turn in range(1 if SMOKE else 3):
            for name, port in ways if turn % 2 == 0 else ways[::-1]:
                command = [probe, f"127.0.0.1:{upstream}", f"127.0.0.1:{port}", str(streams), "1" if SMOKE else "6", str(max(20, streams))]
                rounds[name].append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        for name, _ in ways:
            found[streams, name] = {what: {rank: statistics.median(one[what][rank] for one in rounds[name]) for rank in ("p50", "p99", "p999")}
                                    for what in ("first", "event")}
    return found


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
    memory = {proxy.name: idle_kib(proxy, count) for proxy in proxies if proxy.share == 1}
    return rows, memory, count


def plot(path, rows):
    """CPU of every proxy as bars, one panel a scenario."""
    width, bar, left = 720, 22, 130
    out, top = [], 10
    for name, per, rounds in rows:
        values = {proxy: median(each, "cpu_us") / per for proxy, each in rounds.items()}
        # What is off the scale of the others is said, not drawn.
        largest = max(value for value in values.values() if value <= 10 * min(values.values()))
        out.append(f'<text x="10" y="{top + 16}" font-weight="600">{name}: CPU µs per {"request" if per == 1 else "event"}</text>')
        top += 28
        for proxy, value in sorted(values.items(), key=lambda each: each[1]):
            size = max(1, min(1, value / largest) * (width - left - 80))
            color = "#2a78d6" if proxy == "tollgate" else "#898781"
            out.append(f'<text x="{left - 8}" y="{top + 15}" text-anchor="end">{proxy}</text>'
                       f'<rect x="{left}" y="{top}" width="{size:.1f}" height="{bar - 4}" fill="{color}"/>'
                       f'<text x="{left + size + 6:.1f}" y="{top + 15}">{value:,.2f}{" …" if value > largest else ""}</text>')
            top += bar
        top += 16
    with open(path, "w") as f:
        f.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" font-family="system-ui, sans-serif" font-size="13">'
                f'<rect width="{width}" height="{top}" fill="#fcfcfb"/>{"".join(out)}</svg>\n')


def report(proxies, rows, memory, count, delayed):
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
    for name, each in memory.items():
        lines.append(f"| {count} idle streams after a 100 KB prompt: {name} | {each:.1f} KiB each | | | | | {each - floor:+.1f} KiB |")
    late = ["", "Microseconds until an event that comes alone has arrived, p50 / p99 / p99.9 (medians of three rounds):", "",
            "| streams | | to the first event | each event |", "|---|---|---|---|"]
    for (streams, name), told in delayed.items():
        cells = [" / ".join(f"{told[what][rank]:,.0f}" for rank in ("p50", "p99", "p999")) for what in ("first", "event")]
        late.append(f"| {streams:,} | {name} | {cells[0]} | {cells[1]} |")
    head = [f"{os.cpu_count()} cores, {threads} thread{'s' if threads != '1' else ''} each, {ROUNDS} alternating rounds, medians; "
            f"load average {os.getloadavg()[0]:.2f}; mock and load generator on the same machine.", ""]
    text = "\n".join(head + lines + late) + "\n"
    print(text)
    if not SMOKE:
        os.makedirs("bench/results", exist_ok=True)
        with open("bench/results/latest.md", "w") as f:
            f.write(text)
        plot("bench/results/latest.svg", rows)


main()
