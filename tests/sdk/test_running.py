"""What whoever runs it does: keys, reloads, certificates that do not hold, a full disk, a service manager that listens."""

import contextlib
import json
import sqlite3
import os
import resource
import signal
import socket
import ssl
import subprocess

import httpx2
import pytest
import trustme

from own import OwnGateway, free_ports, until

ASK = {"model": "mock-small", "messages": [{"role": "user", "content": "Hello"}]}


class Gateway(OwnGateway):
    def __init__(self, folder, environment=None, tls=None, **settings):
        [self.admin, mock], self.served, self.tls = free_ports(2), 0, tls
        super().__init__(folder, {"admin": f"127.0.0.1:{self.admin}"} | settings, mock=mock, environment=environment)

    def prepare(self):
        if self.tls:
            settings = json.loads(self.config.read_text())
            self.config.write_text(json.dumps(settings | {"listen": [*settings["listen"], self.tls]}))

    def tollgate(self, *words, code=0):
        done = subprocess.run([self.binary, *words], capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done

    def keys(self, *words, code=0):
        return self.tollgate("keys", "-c", self.config, *words, code=code)

    def ask(self, key=None):
        headers = {"authorization": f"Bearer {key}"} if key else {}
        status = self.http.post("/v1/chat/completions", json=ASK, headers=headers).status_code
        self.served += status == 200
        return status

    def until(self, status, key=None):
        """After a reload, which takes a moment."""
        self.process.send_signal(signal.SIGHUP)
        until(lambda: self.ask(key) == status, self.said)

    def metric(self, name):
        lines = httpx2.get(f"http://127.0.0.1:{self.admin}/metrics", trust_env=False).text.splitlines()
        return next((float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name)), 0.0)


def test_the_life_of_a_key(tmp_path):
    with Gateway(tmp_path, keys={}) as gateway:
        first = gateway.keys("add", "ci", "--org", "acme", "--project", "shop", "--expires", "90d").stdout.strip()
        gateway.until(200, first)
        # A new secret; the old one holds for as long as was said.
        second = gateway.keys("rotate", "ci", "--overlap", "1h").stdout.strip()
        gateway.until(200, second)
        assert first != second and gateway.ask(first) == 200
        third = gateway.keys("rotate", "ci").stdout.strip()
        gateway.until(200, third)
        assert [gateway.ask(first), gateway.ask(second)] == [401, 401]
        # A name that two bear is nobody's.
        other = gateway.keys("add", "ci").stdout.strip()
        assert "several keys" in gateway.keys("revoke", "ci", code=1).stderr
        gateway.keys("revoke", other.split("_")[1])
        gateway.until(401, other)
        assert gateway.ask(third) == 200
        gateway.keys("revoke", "ci")
        gateway.until(401, third)
        assert "no key is called" in gateway.keys("revoke", "ci", code=1).stderr
        ended = gateway.keys("add", "brief", "--expires", "1s").stdout.strip()
        until(lambda: gateway.keys("list").stdout.count("expired") == 1)
        gateway.until(401, ended)
        listed = json.loads(gateway.keys("list", "--json").stdout)
        assert [key["name"] for key in listed] == ["ci", "ci", "brief"] and listed[0]["org"] == "acme"
        table = gateway.keys("list").stdout
        assert [table.count(word) for word in ("revoked", "expired", "valid")] == [2, 1, 0]
        # Nowhere is a secret.
        told = table + json.dumps(listed) + (tmp_path / "keys.json").read_text() + gateway.said() + gateway.log.read_text()
        assert not any(text.rsplit("_", 1)[1] in told for text in (first, second, third, other, ended))
        assert "no provider is called" in gateway.keys("add", "x", "--provider", "nobody", code=1).stderr


def test_a_bad_configuration_changes_nothing_and_says_why(tmp_path):
    with Gateway(tmp_path) as gateway:
        good = json.loads(gateway.config.read_text())
        for bad, why in [("{", "tollgate.yaml"), (json.dumps(good | {"lisen": []}), "lisen"), (json.dumps(good | {"aliases": {"a": "nobody/x"}}), "alias `a`")]:
            gateway.config.write_text(bad)
            gateway.process.send_signal(signal.SIGHUP)
            until(lambda: gateway.metric("tollgate_config_reload_successful") == 0 and why in gateway.said(), gateway.said)
            assert gateway.ask() == 200
            gateway.config.write_text(json.dumps(good))
            gateway.process.send_signal(signal.SIGHUP)
            until(lambda: gateway.metric("tollgate_config_reload_successful") == 1, gateway.said)
        gateway.config.write_text(json.dumps(good | {"aliases": {"fast": "mock/mock-small"}}))
        gateway.process.send_signal(signal.SIGHUP)
        until(lambda: gateway.http.post("/v1/chat/completions", json=ASK | {"model": "fast"}).status_code == 200, gateway.said)


def test_a_certificate_that_does_not_hold_is_not_taken(tmp_path):
    authority = trustme.CA()
    [port] = free_ports(1)
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"

    def issue():
        made = authority.issue_cert("localhost")
        key.write_bytes(made.private_key_pem.bytes())
        cert.write_bytes(b"".join(each.bytes() for each in made.cert_chain_pems))

    def serial():
        """Of the certificate that is shown."""
        shown = ssl.get_server_certificate(("127.0.0.1", port))
        return ssl.PEM_cert_to_DER_cert(shown)

    issue()
    with Gateway(tmp_path, tls={"address": f"127.0.0.1:{port}", "tls": {"cert": str(cert), "key": str(key)}}) as gateway:
        until(lambda: shows(serial), gateway.said)
        first = serial()
        cert.write_text("-----BEGIN CERTIFICATE-----\nbm9uZQ==\n-----END CERTIFICATE-----\n")
        gateway.process.send_signal(signal.SIGHUP)
        until(lambda: gateway.metric("tollgate_config_reload_successful") == 0, gateway.said)
        assert serial() == first
        issue()
        gateway.process.send_signal(signal.SIGHUP)
        until(lambda: gateway.metric("tollgate_config_reload_successful") == 1 and serial() != first, gateway.said)


def shows(serial):
    try:
        return bool(serial())
    except OSError:
        return False


@pytest.mark.parametrize(("choice", "status"), [("refuse", 503), ("continue", 200)])
def test_a_disk_that_takes_nothing(tmp_path, choice, status):
    with Gateway(tmp_path, ledger={"on_failure": choice}, sinks={"sqlite": False}) as gateway:
        assert gateway.ask() == 200
        # No file grows any more.
        before = resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (1, before[1]))
        gateway.ask()
        until(lambda: gateway.metric("tollgate_ledger_failures_total") > 0, gateway.said)
        assert gateway.ask() == status
        answer = httpx2.get(f"http://127.0.0.1:{gateway.admin}/healthz", trust_env=False)
        assert answer.status_code == 503
        resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, before)
        until(lambda: gateway.ask() == 200 and gateway.metric("tollgate_ledger_waiting_bytes") == 0, gateway.said)
    # Everybody who was answered is in the ledger, those of the bad time, too.
    report = json.loads(gateway.tollgate("usage", "--data", tmp_path, "--by", "outcome", "--json").stdout)
    assert {row["outcome"]: row["requests"] for row in report} == {"ok": gateway.served}


def test_the_usage_database_may_be_deleted_or_damaged_while_it_is_fed(tmp_path):
    rows = lambda: [row["requests"] for row in json.loads(gateway.tollgate("usage", "--data", tmp_path, "--by", "outcome", "--json").stdout)]
    database = tmp_path / "usage.db"
    with Gateway(tmp_path, limits=[{"usd_per_month": 1000}]) as gateway:
        settled = lambda: database.exists() and gateway.metric("tollgate_sink_lag_bytes") == 0 and rows() == [gateway.served]
        gateway.ask()
        until(settled, gateway.said)
        for path in tmp_path.glob("usage.db*"):
            path.unlink()
        gateway.ask()
        until(settled, gateway.said)
        # From here on the file counts, and no longer the log beside it.
        with contextlib.closing(sqlite3.connect(database)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with database.open("r+b") as file:
            file.seek(0)
            file.write(b"garbage" * 3000)
        gateway.ask()
        until(lambda: gateway.metric("tollgate_databases_set_aside_total") > 0 and settled(), gateway.said)
        assert list(tmp_path.glob("usage.db.damaged-*"))
    # Nor does a start depend on it.
    for name in ("usage.db", "answers.db"):
        for path in tmp_path.glob(f"{name}-*"):
            path.unlink()
        (tmp_path / name).write_bytes(b"garbage" * 3000)
    served = gateway.served
    with Gateway(tmp_path, limits=[{"usd_per_month": 1000}]) as gateway:
        gateway.ask()
        until(lambda: rows() == [served + 1], gateway.said)
        assert gateway.metric("tollgate_databases_set_aside_total") == 2


def test_a_service_manager_hears_of_it(tmp_path):
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(tmp_path / "notify"))
    listener.settimeout(20)
    with Gateway(tmp_path, environment=os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify")}) as gateway:
        told = listener.recv(1000).decode().split()
        assert told == [f"MAINPID={gateway.process.pid}", "READY=1"]
    assert listener.recv(1000).decode().split() == ["STOPPING=1"]


def test_usage_of_one_request_and_of_the_dearest_groups(tmp_path):
    with Gateway(tmp_path) as gateway:
        ids = []
        for count in (10, 1000, 100):
            ask, headers = ASK | {"model": f"mock-small?output={count}"}, {"x-gateway-tags": f"of-{count}"}
            ids.append(gateway.http.post("/v1/chat/completions", json=ask, headers=headers).headers["x-gateway-request-id"])
        usage = lambda *words, code=0: gateway.tollgate("usage", "--data", tmp_path, *words, code=code)
        until(lambda: len(json.loads(usage("--by", "tag", "--json").stdout)) == 3)
        attempts = lambda: json.loads(usage("--request", ids[1], "--json").stdout)["entries"]
        # That it is over is the last that the ledger hears.
        until(lambda: "outcome" in attempts()[0])
        [entry] = attempts()
        assert entry["request_id"] == ids[1] and entry["outcome"] == "ok"
        told = usage("--request", ids[1]).stdout
        assert "attempt   1 at mock (ok)" in told and "output" in told and "reported" in told
        assert "is known" in usage("--request", "none", code=1).stderr
        table = usage("--by", "tag", "--limit", "1").stdout.splitlines()
        assert len(table) == 3 and table[1].startswith("of-1000") and table[2].split()[:2] == ["total", "3"]


def test_output_that_nobody_reads_on(tmp_path):
    binary = os.environ["TOLLGATE_BINARY"]
    for words in (["check"], ["prices", "show", "claude"], ["completions", "bash"]):
        read, write = os.pipe()
        os.close(read)
        process = subprocess.Popen([binary, *words], stdout=write, stderr=subprocess.PIPE)
        os.close(write)
        # What a shell says of who wrote to a closed pipe.
        assert (process.wait(20), process.stderr.read()) == (128 + signal.SIGPIPE, b""), words
    with open("/dev/full", "w") as full:
        done = subprocess.run([binary, "check"], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and "standard output" in done.stderr
