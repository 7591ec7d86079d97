"""The admin listener: who may ask it for what, and that nobody who reads slowly holds anything up."""

import os
import re
import threading
from pathlib import Path

import httpx2

from own import OwnGateway, free_ports, until

TOKEN = "a-token-of-some-length"
BODY = {"model": "mock-small", "messages": []}
METRICS = Path(__file__).parents[2] / "docs" / "metrics.md"


class Gateway(OwnGateway):
    def __init__(self, folder, **more):
        mock, self.port = free_ports(2)
        self.admin = f"http://127.0.0.1:{self.port}"
        super().__init__(folder, {"admin": f"127.0.0.1:{self.port}"} | more, mock=mock)

    def get(self, path, **headers):
        return httpx2.get(self.admin + path, headers=headers, trust_env=False)

    def chat(self, **body):
        return self.http.post("/v1/chat/completions", json=BODY | body)

    def metric(self, name):
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.get("/metrics").text, re.M)
        return float(found[1]) if found else None


def test_pages_of_others_learn_nothing_and_lend_nobody_their_name(tmp_path):
    with Gateway(tmp_path) as gateway:
        for path in ("/", "/metrics", "/status", "/overview", "/usage", "/healthz"):
            answer = gateway.get(path)
            assert answer.status_code == 200
            assert not [name for name in answer.headers if name.startswith("access-control")]
            assert answer.headers["cross-origin-resource-policy"] == "same-origin" and answer.headers["x-content-type-options"] == "nosniff"
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
            for foreign in ({"sec-fetch-site": "cross-site"}, {"origin": "https://evil.example"}):
                assert gateway.get(path, **foreign).status_code == 403, (path, foreign)
            # A name that somebody else points here. Whether it is well may be asked by any.
            assert gateway.get(path, host="evil.example").status_code == (200 if path == "/healthz" else 403), path


def test_with_a_token_the_address_may_be_called_anything(tmp_path):
    with Gateway(tmp_path, admin_token=TOKEN) as gateway:
        bearer = {"authorization": f"Bearer {TOKEN}"}
        for host in (f"10.0.0.7:{gateway.port}", "tollgate.example"):
            assert gateway.get("/healthz", host=host).status_code == 200
            assert gateway.get("/metrics", host=host).status_code == 401
            assert gateway.get("/metrics", host=host, authorization="Bearer another-token-of-length").status_code == 401
            assert gateway.get("/metrics", host=host, **bearer).status_code == 200
            assert gateway.get("/metrics", host=host, **bearer, **{"sec-fetch-site": "cross-site"}).status_code == 403


def test_who_does_not_read_the_access_log_holds_nothing_up(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    # Held open, and never read.
    held = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)
    gateway = Gateway(tmp_path, access_log=str(pipe))
    # More than fits the pipe.
    assert all(gateway.chat().status_code == 200 for _ in range(200))
    until(lambda: gateway.metric('tollgate_sink_entries_total{sink="sqlite"}') == 200)
    gateway.config.write_text(gateway.config.read_text().replace('"admin"', '"origins": ["https://app.example"], "admin"'))
    until(lambda: gateway.metric('tollgate_config_reload_total{result="ok"}') == 1)
    gateway.process.terminate()
    assert gateway.process.wait(10) == 0
    os.close(held)
    assert "nobody takes the last lines" in gateway.said()


def test_lines_that_cannot_be_written_are_counted(tmp_path):
    with Gateway(tmp_path, access_log="/dev/full") as gateway:
        assert all(gateway.chat().status_code == 200 for _ in range(5))
        until(lambda: gateway.metric("tollgate_access_log_dropped_total") == 5)
        assert gateway.said().count("the access log cannot be written") == 1


def test_nothing_secret_is_logged_or_measured(tmp_path):
    secrets = ["k3y-in-a-header", "k3y-in-a-query", "a-prompt-of-somebody"]
    with Gateway(tmp_path, keys={}) as gateway:
        for path in ("/v1/chat/completions", f"/v1/chat/completions?key={secrets[1]}", "/v1/none"):
            gateway.http.post(path, json=BODY | {"messages": [{"role": "user", "content": secrets[2]}]}, headers={"x-api-key": secrets[0]})
        until(lambda: sum(line["method"] == "POST" for line in gateway.entries()) == 3)
        told = [gateway.log.read_text(), gateway.get("/metrics").text, gateway.said()]
        assert not [secret for secret in secrets for text in told if secret in text]


def exposition(text):
    """Kind, help and labels of each metric."""
    found = {}
    for line in text.splitlines():
        if line.startswith("# HELP "):
            name, said = line[7:].split(" ", 1)
            found[name] = {"help": said, "labels": set()}
        elif line.startswith("# TYPE "):
            name, kind = line[7:].split(" ")
            found[name]["kind"] = kind
        else:
            series, labels = re.fullmatch(r"(\w+)(?:\{(.*)\})? \S+", line).groups()
            name = series if series in found else re.sub("_(bucket|sum|count)$", "", series)
            found[name]["labels"] |= set(re.findall(r'(\w+)="', labels or "")) - {"le"}
    return found


def documented():
    rows = re.findall(r"^\| `(tollgate_\w+)` \| (\w+) \| (.*?) \| (.*) \|$", METRICS.read_text(), re.M)
    return {name: {"kind": kind, "labels": set(re.findall(r"`(\w+)`", labels)), "help": said} for name, kind, labels, said in rows}


def test_metrics_are_as_documented_and_bounded(tmp_path):
    aliases = {"smart": ["broken/gpt-5", "mock/mock-small"]}
    broken = {"broken": {"base_url": "http://127.0.0.1:1/v1", "prices": "openai"}}
    settings = {"providers": broken, "aliases": aliases, "retry": {"eject_after": 1, "eject_max": "60s"}}
    with Gateway(tmp_path, **settings) as gateway:
        for model in ("mock-small", "smart", "smart", "mock-small?error=500", "mock-small?chunks=3"):
            gateway.chat(model=model, stream="chunks" in model)
            if model == "smart":
                # Of an ejection that is over nothing is told.
                assert gateway.metric('tollgate_candidate_ejected{model="gpt-5",provider="broken"}') == 1
                assert gateway.get("/status").json()["ejected"] == ["broken/gpt-5"]
        gateway.http.get("/v1/none")
        # What is invented makes no series.
        before = None
        for at in range(40):
            gateway.http.post("/mock/v1/chat/completions", json=BODY | {"model": f"invented-{at}", "user": f"user-{at}"}, headers={"x-gateway-tags": f"tag-{at}"})
            gateway.http.get(f"/invented/{at}")
            before = before or gateway.get("/metrics").text.count("\n")
        until(lambda: gateway.metric('tollgate_sink_entries_total{sink="sqlite"}') >= 46)
        text = gateway.get("/metrics").text
        assert "invented-" not in text and text.count("\n") <= before + 2
        assert gateway.metric('tollgate_ejections_total{model="gpt-5",provider="broken"}') == 1
        assert gateway.metric('tollgate_requests_total{dialect="chat",status="2xx"}') >= 44
        seen, told = exposition(text), documented()
        for name, metric in seen.items():
            assert metric == told[name], name
        unseen = {name for name, metric in told.items() if name not in seen}
        # What this run had no reason to count; that they are there is seen in their source.
        assert unseen <= {"tollgate_faults_total", "tollgate_identity_fetches_total", "tollgate_prices_fetches_total", "tollgate_spans_total",
                          "tollgate_config_reload_total", "tollgate_sink_failures_total", "tollgate_unpriced_total"}, unseen


def test_what_is_under_way_is_told(tmp_path):
    with Gateway(tmp_path) as gateway:
        body = {"model": "mock-small?chunks=50&delay_ms=100", "stream": True}
        thread = threading.Thread(target=lambda: gateway.chat(**body))
        thread.start()
        until(lambda: gateway.get("/status").json()["streams"] == 1)
        overview = gateway.get("/overview").json()
        assert (overview["outcomes"], overview["total"]["errors"]) == ({"running": 1}, 0)
        assert [row["outcome"] for row in gateway.get("/usage?by=outcome").json()] == ["running"]
        assert gateway.get("/overview?until=1h").json()["total"]["requests"] == 0
        thread.join()
        until(lambda: gateway.get("/overview").json()["outcomes"] == {"ok": 1})
        until(lambda: gateway.get("/status").json()["streams"] == 0)
