"""A gateway of a test's own, beside the one that all share."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2

DEADLINE_S = 20


def free_ports(count):
    """Ports that nobody listens on; held together, so that they differ."""
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return ports


def until(found, why=lambda: None, seconds=DEADLINE_S):
    """Waits for something to become true; says why not if it does not."""
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline, why()
        time.sleep(0.05)


class OwnGateway:
    """Runs on settings beside the usual ones, with its data in a folder of its own. Without `mock` none is built in."""

    def __init__(self, folder, settings, *, mock=None, environment=None):
        [port] = free_ports(1)
        self.folder, self.stderr, self.log = folder, folder / "stderr", folder / "access.jsonl"
        usual = {"listen": [f"127.0.0.1:{port}"], "admin": "off", "mock": f"127.0.0.1:{mock}" if mock else "off"}
        usual |= {"data": str(folder), "environment_providers": False, "access_log": str(self.log)}
        self.binary, self.config, self.url = os.environ["TOLLGATE_BINARY"], folder / "tollgate.yaml", f"http://127.0.0.1:{port}"
        self.config.write_text(json.dumps(usual | settings))
        self.prepare()
        with self.stderr.open("a") as stderr:
            self.process = subprocess.Popen([self.binary, "-c", self.config], env=environment, stderr=stderr)
        wait = Path(__file__).with_name("wait.py")
        ports = [str(each) for each in (port, mock) if each]
        subprocess.run([sys.executable, wait, str(self.process.pid), *ports], check=True)
        self.http = httpx2.Client(base_url=self.url, trust_env=False, timeout=30)

    def prepare(self):
        """What is to be done with the configuration before it is served."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.http.close()
        self.process.terminate()
        assert self.process.wait(10) == 0

    def said(self):
        return self.stderr.read_text()

    def entries(self):
        return [json.loads(line) for line in self.log.read_text().splitlines()]
