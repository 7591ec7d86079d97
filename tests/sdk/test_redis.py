"""What gateways share in Redis: limits, and whose the answers are that providers keep. A real server, over TLS."""

import contextlib
import itertools
import json
import shutil
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import pytest
import trustme

from own import OwnGateway, free_ports, until

# A thousand tokens at a dollar and a hundred at five dollars the million; the prompt's text comes to as many.
ASK = {"model": "mock-small?input=1000&cached=0&output=100&reasoning=0", "max_tokens": 100, "messages": [{"role": "user", "content": "word " * 800}]}
USD = Decimal("0.0015")


class Redis:
    """A server of the test's own that keeps what it knows over a restart."""

    def __init__(self, folder):
        self.binary = shutil.which("redis-server") or shutil.which("valkey-server")
        if not self.binary:
            pytest.skip("there is no Redis on this machine")
        [self.port], self.folder, self.ca = free_ports(1), folder, folder / "ca.pem"
        authority = trustme.CA()
        certificate = authority.issue_cert("localhost")
        authority.cert_pem.write_to_path(self.ca)
        certificate.cert_chain_pems[0].write_to_path(folder / "server.crt")
        certificate.private_key_pem.write_to_path(folder / "server.key")
        self.url = f"rediss://:s3cret@localhost:{self.port}/0"
        self.start()

    def start(self):
        tls = ["--port", "0", "--tls-port", str(self.port), "--tls-cert-file", self.folder / "server.crt", "--tls-key-file", self.folder / "server.key"]
        tls += ["--tls-ca-cert-file", self.ca, "--tls-auth-clients", "no", "--requirepass", "s3cret"]
        keep = ["--dir", self.folder, "--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        self.process = subprocess.Popen([self.binary, "--bind", "127.0.0.1", *tls, *keep], stdout=subprocess.DEVNULL)
        until(lambda: self.ask("PING") == ["PONG"])

    def kill(self):
        self.process.kill()
        self.process.wait()

    def ask(self, *words):
        command = ["redis-cli", "--no-auth-warning", "-h", "localhost", "-p", str(self.port), "--tls", "--cacert", self.ca, "-a", "s3cret"]
        return subprocess.run([*command, *words], capture_output=True, text=True).stdout.split()


@pytest.fixture
def redis(tmp_path):
    folder = tmp_path / "redis"
    folder.mkdir()
    server = Redis(folder)
    yield server
    server.kill()


class Gateway(OwnGateway):
    def __init__(self, folder, redis, limits=(), more=None, **sharing):
        folder.mkdir()
        settings = {"limits": list(limits), "redis": {"url": redis.url, "ca": str(redis.ca), "timeout": "5s"} | sharing}
        super().__init__(folder, settings | (more or {}), mock=None if more else free_ports(1)[0])

    def ask(self, **more):
        return self.http.post("/v1/chat/completions", json=ASK | more)

    def spent(self):
        self.settled()
        return sum(Decimal(entry.get("total", "0")) for entry in self.entries()) / 10**12

    def settled(self):
        """Every answer has its line in the log."""
        time.sleep(0.2)


def code(answer):
    return answer.json()["error"]["code"]


def test_a_budget_is_exceeded_by_what_nobody_could_know_and_no_more(tmp_path, redis):
    # Three thousand tokens of an answer without a bound, for which a thousand are reserved: of $0.016 at least $0.006.
    ask = {key: value for key, value in ASK.items() if key != "max_tokens"} | {"model": "mock-small?input=1000&cached=0&output=3000&reasoning=0"}
    budget, actual, reserved, callers = Decimal("0.2"), Decimal("0.016"), Decimal("0.006"), 8
    limits = [{"per": "all", "usd_per_day": float(budget)}]
    with Gateway(tmp_path / "one", redis, limits) as one, Gateway(tmp_path / "two", redis, limits) as two, ThreadPoolExecutor(callers) as pool:
        spend = lambda gateway: gateway.http.post("/v1/chat/completions", json=ask).status_code
        while 429 not in list(pool.map(spend, [one, two] * (callers // 2))):
            # No more are under way than asked together: who has its answer may still be on the way to its bill.
            until(lambda: not [key for key in redis.ask("KEYS", "*") if ":holds" in key], one.said)
        spent = one.spent() + two.spent()
        assert budget - actual < spent <= budget + callers * (actual - reserved), spent
        assert spent > budget, "nothing was exceeded"


def test_two_gateways_spend_one_budget_and_no_more(tmp_path, redis):
    limits = [{"per": "all", "usd_per_day": 0.15}]
    with Gateway(tmp_path / "one", redis, limits) as one, Gateway(tmp_path / "two", redis, limits) as two:

        def spend(gateway):
            while True:
                answer = gateway.ask()
                if answer.status_code == 429 and code(answer) == "insufficient_quota":
                    return
                assert answer.status_code == 200 or code(answer) == "rate_limit_exceeded", answer.text

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(spend, [one, two] * 8))
        spent = one.spent() + two.spent()
        # What is reserved bounds what is used: not a cent beyond, and no more than one request's worth left.
        assert Decimal("0.15") - 2 * USD < spent <= Decimal("0.15"), spent
        assert min(one.spent(), two.spent()) > 0
        assert "s3cret" not in one.said() + two.said()


def test_requests_are_counted_together(tmp_path, redis):
    limits = [{"per": "all", "requests_per_minute": 6, "tokens_per_minute": 100_000}, {"per": "all", "model": "mock-large", "concurrent": 2}]
    with Gateway(tmp_path / "one", redis, limits) as one, Gateway(tmp_path / "two", redis, limits) as two:
        answers = [gateway.ask() for gateway in [one, two] * 4]
        assert [answer.status_code for answer in answers] == [200] * 6 + [429] * 2
        assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers[:6]] == ["5", "4", "3", "2", "1", "0"]
        assert 0 < int(answers[6].headers["retry-after"]) <= 10
        tokens = int(answers[5].headers["x-ratelimit-remaining-tokens"])
        assert 100_000 - 6 * 1300 < tokens < 100_000 - 5 * 1000


def test_tokens_are_settled_and_nobody_can_lock_others_out(tmp_path, redis):
    limits = [{"per": "all", "tokens_per_minute": 200_000}, {"per": "org", "org": "other", "usd_per_day": 1}]
    with Gateway(tmp_path / "one", redis, limits) as gateway:
        # Each allows for more than half, and uses a thousand.
        for _ in range(10):
            until(lambda: gateway.ask(max_tokens=150_000).status_code == 200, gateway.said)
        huge = ASK | {"max_tokens": 10**18, "stream": True, "model": "mock-small?chunks=2&delay_ms=1500&input=1000&output=100&reasoning=0"}
        # More than fits at all goes in when nobody else is there.
        [counter] = [key for key in redis.ask("KEYS", "*:limit:*") if ":holds" not in key]
        redis.ask("HDEL", counter, "tokens")
        thread = threading.Thread(target=lambda: gateway.http.post("/v1/chat/completions", json=huge))
        thread.start()
        until(lambda: gateway.ask().status_code == 429, gateway.said)
        thread.join()
        # It used a thousand, and so much is what is left of it.
        until(lambda: gateway.ask().status_code == 200, gateway.said)
        assert "cannot be asked" not in gateway.said() and "lost to limits" not in gateway.said()


def test_a_server_that_forgets_begins_from_zero(tmp_path, redis):
    with Gateway(tmp_path / "one", redis, [{"per": "all", "usd_per_day": 1}]) as gateway:
        slow = ASK | {"stream": True, "model": "mock-small?chunks=2&delay_ms=1000&input=1000&output=100&reasoning=0&cached=0"}
        thread = threading.Thread(target=lambda: gateway.http.post("/v1/chat/completions", json=slow))
        thread.start()
        until(lambda: redis.ask("KEYS", "*:holds"), gateway.said)
        redis.ask("FLUSHALL")
        thread.join()
        spent = [str(int(USD * 10**9))]
        until(lambda: [redis.ask("HGET", key, "day_spent") for key in redis.ask("KEYS", "*:limit:*") if ":holds" not in key] == [spent])


def test_what_a_killed_gateway_had_reserved(tmp_path, redis):
    limits = [{"per": "all", "concurrent": 2, "usd_per_day": 1}]
    killed = Gateway(tmp_path / "one", redis, limits)
    with Gateway(tmp_path / "two", redis, limits) as two:
        slow = ASK | {"stream": True, "model": "mock-small?chunks=2&delay_ms=60000"}

        def wait():
            with contextlib.suppress(httpx2.TransportError):
                killed.http.post("/v1/chat/completions", json=slow)

        waiting = [threading.Thread(target=wait) for _ in range(2)]
        [thread.start() for thread in waiting]
        until(lambda: [redis.ask("ZCARD", holds) for holds in redis.ask("KEYS", "*:holds")] == [["2"]])
        assert two.ask().status_code == 429
        killed.process.kill()
        killed.process.wait()
        [thread.join() for thread in waiting]
        assert code(two.ask()) == "rate_limit_exceeded"
        # As if a minute had passed.
        [holds] = [key for key in redis.ask("KEYS", "*:holds")]
        for hold in redis.ask("ZRANGE", holds, "0", "-1"):
            redis.ask("ZADD", holds, "XX", "1", hold)
        assert two.ask().status_code == 200
        # Nobody can say what they came to: what was reserved counts as spent.
        counter = holds.removesuffix(":holds")
        until(lambda: redis.ask("HGET", counter, "reserved") == ["0"])
        nano = int(redis.ask("HGET", counter, "day_spent")[0])
        assert 3 * USD < Decimal(nano) / 10**9 < 4 * USD


def test_a_connection_that_was_closed_meanwhile(tmp_path, redis):
    with Gateway(tmp_path / "one", redis, [{"per": "all", "requests_per_minute": 100}]) as gateway:
        left = []
        for _ in range(3):
            left.append(int(gateway.ask().headers["x-ratelimit-remaining-requests"]))
            redis.ask("CLIENT", "KILL", "TYPE", "normal")
        assert left == [99, 98, 97]


@pytest.mark.parametrize("choice", ["open", "closed"])
def test_without_redis(tmp_path, redis, choice):
    limits = [{"per": "all", "usd_per_day": str(3 * USD + USD / 2)}]
    with Gateway(tmp_path / "one", redis, limits, on_failure=choice) as gateway:
        assert gateway.ask().status_code == 200
        redis.kill()
        answers = [gateway.ask() for _ in range(2)]
        if choice == "closed":
            assert {(answer.status_code, code(answer), answer.headers["retry-after"]) for answer in answers} == {(503, "limits_unavailable", "1")}
            redis.start()
            until(lambda: gateway.ask().status_code == 200, gateway.said)
        else:
            assert {answer.status_code for answer in answers} == {200}
            redis.start()
            # What they came to is told late, once, and counts.
            [counter] = [key for key in redis.ask("KEYS", "*:limit:*") if ":holds" not in key]
            until(lambda: redis.ask("HGET", counter, "day_spent") == [str(int(3 * USD * 10**9))], gateway.said)
            until(lambda: gateway.ask().status_code == 429, gateway.said)
        assert "s3cret" not in gateway.said()


SERIAL = itertools.count()


class Provider(BaseHTTPRequestHandler):
    """Keeps every answer it gave."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, id):
        usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
        body = {"id": id, "object": "response", "status": "completed", "model": "mock-small", "output": [], "usage": usage}
        text = json.dumps(body | {"served_by": self.server.server_port}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.answer(f"resp_{next(SERIAL)}")

    def do_GET(self):
        self.answer(self.path.rsplit("/")[-1])


def test_kept_answers_are_known_to_all(tmp_path, redis):
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Provider) for _ in range(2)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    providers = {f"account{at}": {"kind": "openai", "base_url": f"http://127.0.0.1:{server.server_port}/v1", "api_key": "k", "prices": "mock"}
                 for at, server in enumerate(servers)}
    more = {"providers": providers, "keys": {"file": str(tmp_path / "keys.json")}}
    with Gateway(tmp_path / "one", redis, more=more) as one, Gateway(tmp_path / "two", redis, more=more) as two:

        def key(name):
            command = [one.binary, "keys", "-c", one.config, "add", name]
            made = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            return made.splitlines()[0]

        mine, other = ({"authorization": f"Bearer {key(name)}"} for name in ("mine", "other"))
        body = {"model": "account1/mock-small", "input": "hi"}
        until(lambda: all(gateway.http.post("/v1/responses", json=body, headers=other).status_code == 200 for gateway in (one, two)))
        made = one.http.post("/v1/responses", json=body, headers=mine).json()
        # By whoever knows the account, of whose key it is, and by nobody else's.
        found = two.http.get(f"/v1/responses/{made['id']}", headers=mine)
        assert (found.status_code, found.json().get("served_by")) == (200, servers[1].server_port), found.text
        follow = two.http.post("/v1/responses", json=body | {"previous_response_id": made["id"], "model": "mock-small"}, headers=mine)
        assert (follow.status_code, follow.json()["served_by"]) == (200, servers[1].server_port)
        assert two.http.get(f"/v1/responses/{made['id']}", headers=other).status_code == 404
    for server in servers:
        server.shutdown()
