"""How a gateway leaves: when all has ended, at once, or when its time is over; and that it stays if nobody takes over."""

import json
import os
import resource
import signal
import subprocess
import threading
import time

import httpx2
import pytest

from own import OwnGateway, free_ports, until

STREAM = {"model": "mock-small?chunks=20&delay_ms=100", "messages": [], "stream": True}


class Gateway(OwnGateway):
    def __init__(self, folder, **more):
        [self.mock] = free_ports(1)
        super().__init__(folder, more, mock=self.mock)
        self.told = []

    def stream(self, **body):
        """Begins one; what came of it is known when it has ended."""
        began, come = threading.Event(), []

        def read():
            try:
                with self.http.stream("POST", "/v1/chat/completions", json=STREAM | body) as answer:
                    for piece in answer.iter_bytes():
                        come.append(piece)
                        began.set()
                self.told.append(b"".join(come))
            except httpx2.HTTPError as error:
                self.told.append(error)

        thread = threading.Thread(target=read)
        thread.start()
        assert began.wait(10)
        return thread

    def outcomes(self):
        done = subprocess.run([self.binary, "usage", "--data", self.folder, "--by", "outcome", "--json"], capture_output=True, text=True, check=True)
        return {row["outcome"]: row["requests"] for row in json.loads(done.stdout)}


def test_sigterm_lets_streams_end(tmp_path):
    gateway = Gateway(tmp_path)
    thread = gateway.stream()
    gateway.process.terminate()
    # Nothing new is taken.
    until(lambda: refused(gateway.url))
    assert gateway.process.poll() is None
    thread.join()
    assert gateway.process.wait(5) == 0
    assert gateway.told[0].endswith(b"data: [DONE]\n\n") and gateway.outcomes() == {"ok": 1}


def refused(url):
    try:
        return not httpx2.get(url, trust_env=False, timeout=2)
    except httpx2.ConnectError:
        return True


def test_the_admin_listener_stays_open_and_readiness_ends_at_once(tmp_path):
    [admin] = free_ports(1)
    gateway = Gateway(tmp_path, admin=f"127.0.0.1:{admin}", shutdown={"delay": "1s"})
    at = lambda path: httpx2.get(f"http://127.0.0.1:{admin}{path}", trust_env=False, timeout=5).status_code
    assert [at("/healthz"), at("/readyz")] == [200, 200]
    thread = gateway.stream(model="mock-small?chunks=40&delay_ms=100")
    gateway.process.terminate()
    until(lambda: at("/readyz") == 503, gateway.said)
    # Until the delay is over, connections are accepted.
    assert httpx2.post(f"{gateway.url}/v1/chat/completions", json=STREAM | {"stream": False}, trust_env=False).status_code == 200
    until(lambda: refused(gateway.url))
    # Then the stream goes on, and the admin listener with it.
    assert [at("/healthz"), at("/metrics"), at("/readyz")] == [200, 200, 503]
    thread.join()
    assert gateway.told[0].endswith(b"data: [DONE]\n\n")
    assert gateway.process.wait(5) == 0 and gateway.outcomes() == {"ok": 2}


def fill(gateway):
    """No file of the gateway grows any more, while a response is in progress; its records wait in memory."""
    thread = gateway.stream(model="mock-small?chunks=5&delay_ms=100")
    before = resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (1, before[1]))
    thread.join()
    return before


def test_records_that_the_disk_does_not_take_at_the_end_are_counted_as_lost(tmp_path):
    gateway = Gateway(tmp_path, sinks={"sqlite": False}, timeouts={"drain": "2s"})
    fill(gateway)
    gateway.process.terminate()
    # Its log is a file that cannot grow either: the exit code tells.
    assert gateway.process.wait(20) == 1


def test_records_wait_at_the_end_for_a_disk_that_recovers(tmp_path):
    gateway = Gateway(tmp_path, sinks={"sqlite": False}, timeouts={"drain": "60s"})
    before = fill(gateway)
    gateway.process.terminate()
    until(lambda: refused(gateway.url))
    resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, before)
    assert gateway.process.wait(20) == 0, gateway.said()
    assert gateway.outcomes() == {"ok": 1}
    # A line that the full disk took in part is no damage.
    report = subprocess.run([gateway.binary, "usage", "--data", tmp_path], capture_output=True, text=True)
    assert report.returncode == 0 and "damaged" not in report.stderr, report.stderr


def test_sigint_is_quick_and_the_cut_can_be_seen(tmp_path):
    gateway = Gateway(tmp_path)
    thread = gateway.stream()
    gateway.process.send_signal(signal.SIGINT)
    before = time.monotonic()
    gateway.process.wait(5)
    assert time.monotonic() - before < 3
    thread.join()
    assert isinstance(gateway.told[0], httpx2.HTTPError)
    [(outcome, count)] = gateway.outcomes().items()
    assert outcome != "ok" and count == 1


def test_when_its_time_is_over_what_is_left_is_cut_and_closed(tmp_path):
    gateway = Gateway(tmp_path, timeouts={"drain": "2s"})
    thread = gateway.stream(model="mock-small?chunks=600&delay_ms=100")
    before = time.monotonic()
    gateway.process.terminate()
    gateway.process.wait(20)
    assert 1.5 < time.monotonic() - before < 10
    thread.join()
    assert isinstance(gateway.told[0], httpx2.HTTPError)
    [(outcome, count)] = gateway.outcomes().items()
    assert outcome != "ok" and count == 1


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_successor_that_dies_while_it_waits_changes_nothing(tmp_path, how):
    [admin] = free_ports(1)
    with Gateway(tmp_path, admin=f"127.0.0.1:{admin}") as gateway:
        successor = subprocess.Popen([gateway.binary, "-c", gateway.config, "--upgrade"], stderr=subprocess.DEVNULL)
        until(lambda: (tmp_path / "run/upgrade.sock").exists())
        successor.send_signal(how)
        successor.wait(10)
        thread = gateway.stream()
        gateway.process.send_signal(signal.SIGQUIT)
        failed = lambda: "tollgate_upgrades_failed_total 1" in httpx2.get(f"http://127.0.0.1:{admin}/metrics", trust_env=False).text
        until(failed, gateway.said)
        assert "Serving on" in gateway.said()
        thread.join()
        assert gateway.told[0].endswith(b"data: [DONE]\n\n")
        assert gateway.http.post("/v1/chat/completions", json=STREAM | {"stream": False}).status_code == 200


@pytest.mark.skipif("TOLLGATE_SOAK" not in os.environ, reason="it waits for half a minute: TOLLGATE_SOAK is not set")
def test_a_successor_that_was_stopped_for_too_long_does_not_serve_beside_the_old_one(tmp_path):
    with Gateway(tmp_path) as gateway:
        successor = subprocess.Popen([gateway.binary, "-c", gateway.config, "--upgrade"], stderr=subprocess.DEVNULL)
        until(lambda: (tmp_path / "run/upgrade.sock").exists())
        successor.send_signal(signal.SIGSTOP)
        gateway.process.send_signal(signal.SIGQUIT)
        until(lambda: "Serving on" in gateway.said(), gateway.said, 60)
        successor.send_signal(signal.SIGCONT)
        assert successor.wait(10) != 0
        assert gateway.http.post("/v1/chat/completions", json=STREAM | {"stream": False}).status_code == 200
