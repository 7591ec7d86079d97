"""Published prices, fetched by a gateway of its own, and markups on top; the command line beside it."""

import json
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from own import OwnGateway, free_ports, until

ASK = {"model": "mock-small?input=1000&cached=0&output=100&reasoning=0", "messages": [{"role": "user", "content": "Hello"}]}


def published(price, models=("mock-small",)):
    return {"openai": {"models": {name: {"cost": {"input": price, "output": 10}} for name in models}}}


class Publisher(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        body = json.dumps(self.server.prices).encode()
        tag = f'"{hash(body)}"'
        same = self.headers["if-none-match"] == tag
        self.server.asked.append(same)
        self.send_response(304 if same else 200)
        self.send_header("etag", tag)
        self.send_header("content-length", "0" if same else str(len(body)))
        self.end_headers()
        if not same:
            self.wfile.write(body)


@pytest.fixture
def publisher():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Publisher)
    server.prices, server.asked = published(2), []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


class Gateway(OwnGateway):
    def __init__(self, folder, prices):
        [mock] = free_ports(1)
        provider = {"kind": "openai", "base_url": f"http://127.0.0.1:{mock}/v1", "api_key": "k", "prices": "openai"}
        super().__init__(folder, {"providers": {"sold": provider, "resold": provider}, "prices": prices}, mock=mock)

    def charge(self, provider="sold"):
        """What one more request costs, if it has a price."""
        answer = self.http.post(f"/{provider}/v1/chat/completions", json=ASK)
        assert answer.status_code == 200
        return answer.headers.get("x-gateway-cost")

    def until(self, found):
        until(found, self.said)

    def lines(self):
        return [entry["lines"][0] for entry in self.entries()]


def test_prices_are_fetched_and_held_by_what_they_were(tmp_path, publisher):
    url = f"http://127.0.0.1:{publisher.server_port}/api.json"
    prices = {"import": [{"from": "models.dev", "url": url, "every": "1s"}]}
    with Gateway(tmp_path, prices) as gateway:
        gateway.until(lambda: gateway.charge() == "0.003")
        publisher.prices = published(4)
        gateway.until(lambda: gateway.charge() == "0.005")
        # Nothing newer is asked for by its tag.
        asked = len(publisher.asked)
        gateway.until(lambda: publisher.asked[asked:].count(True) >= 2)
        # Eleven times as much is not believed.
        publisher.prices = published(44)
        gateway.until(lambda: "would cost $44 per million of input instead of $4" in gateway.said())
        publisher.prices = {"error": "maintenance"}
        gateway.until(lambda: "no price in it can be read" in gateway.said())
        assert gateway.charge() == "0.005"
    publisher.shutdown()
    # What was fetched holds from the start.
    with Gateway(tmp_path, prices) as gateway:
        assert gateway.charge() == "0.005"


def test_most_models_gone_is_not_believed(tmp_path, publisher):
    names = ["mock-small", "b", "c", "d"]
    publisher.prices = published(2, names)
    prices = {"import": [{"from": "models.dev", "url": f"http://127.0.0.1:{publisher.server_port}/", "every": "1s"}]}
    with Gateway(tmp_path, prices) as gateway:
        gateway.until(lambda: gateway.charge() == "0.003")
        publisher.prices = published(3, names[:2])
        gateway.until(lambda: "models that were there are gone" in gateway.said())
        assert gateway.charge() == "0.003"


def test_markups(tmp_path):
    file = tmp_path / "published.json"
    file.write_text(json.dumps(published(2)))
    markup = [{"factor": 1.5}, {"provider": "resold", "model": "mock-*", "factor": 1.0001}]
    with Gateway(tmp_path, {"import": [{"from": "models.dev", "file": str(file)}], "markup": markup}) as gateway:
        assert (gateway.charge("sold"), gateway.charge("resold")) == ("0.0045", "0.0030003")
    assert [(line["markup"], line["charge"]) for line in gateway.lines()] == [("1.5", "4500000000"), ("1.0001", "3000300000")]


def prices(*words):
    done = subprocess.run([os.environ["TOLLGATE_BINARY"], "prices", *words], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_the_command_line(tmp_path, publisher):
    code, said = prices("show", "gpt-5", "--provider", "openai")
    assert code == 0 and said.startswith("openai/gpt-5\n  always, unless a price below holds\n"), said
    assert all(rate in said for rate in ["$1.25 per million tokens", "$10 per thousand searches", "  source: "]), said
    assert prices("show", "no-such-model")[0] == 1
    file = tmp_path / "published.json"
    file.write_text(json.dumps(published(2, ["gpt-5"])))
    code, said = prices("diff", f"models.dev={file}")
    assert code == 0 and "2 (×1.60)" in next(line for line in said.splitlines() if line.startswith("openai/gpt-5")), said
    code, said = prices("import", "models.dev", "--url", f"http://127.0.0.1:{publisher.server_port}/", "-o", tmp_path / "out")
    assert (code, said) == (0, f"{tmp_path}/out/openai.yaml: 1 models\n")
    config = tmp_path / "c.yaml"
    config.write_text(f'prices: {{overlay: ["{tmp_path}/out/openai.yaml"]}}\n')
    code, said = prices("-c", config, "show", "mock-small", "--provider", "openai")
    assert code == 0 and said.startswith("openai/mock-small\n") and "$2 per million tokens" in said and "$10 per million tokens" in said
    assert prices("diff", f"litellm={file}")[0] == 1
