"""A PostgreSQL server of a test's own, from the packages of the system. Standard library only."""

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path


class PostgreSQL:
    """Not running yet. Over TLS if there is an authority (its PEM, written to `ca`) and a certificate of `trustme`."""

    def __init__(self, authority=None, certificate=None):
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        # It does not run as root.
        user = "postgres" if os.geteuid() == 0 else None
        self.runs_as = ["runuser", "-u", user, "--"] if user else []
        self.folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self.data, self.ca, self.tls = self.folder / "data", self.folder / "ca.pem", ""
        if certificate:
            authority.write_to_path(self.ca)
            certificate.cert_chain_pems[0].write_to_path(self.folder / "server.crt")
            certificate.private_key_pem.write_to_path(self.folder / "server.key")
            self.tls = f"-c ssl=on -c ssl_cert_file={self.folder}/server.crt -c ssl_key_file={self.folder}/server.key"
        (self.folder / "password").write_text("s3cret")
        for path in [self.folder, *self.folder.iterdir()]:
            if user:
                shutil.chown(path, user)
            path.chmod(0o755 if path.is_dir() else 0o600)
        self.run("initdb", "-D", self.data, "-A", "scram-sha-256", "-U", "owner", f"--pwfile={self.folder}/password", "--no-sync")
        self.url = f"postgres://owner:s3cret@localhost:{self.port}/postgres?sslmode={'require' if self.tls else 'disable'}"

    @staticmethod
    def tools():
        """Where its programs are, or None."""
        return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)

    def run(self, tool, *options):
        environment = {"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        command = [*self.runs_as, self.tools() / tool, *options]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/", env=environment)

    def start(self):
        settings = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off {self.tls}"
        self.run("pg_ctl", "-D", self.data, "-w", "-l", self.data / "log", "-o", settings, "start")

    def stop(self):
        """As if its power were cut."""
        self.run("pg_ctl", "-D", self.data, "-m", "immediate", "-w", "stop")

    def remove(self):
        self.stop()
        shutil.rmtree(self.folder)

    def ask(self, query):
        """The rows of the answer, each a list of texts."""
        command = [self.tools() / "psql", self.url, "-AtX", "-F", "|", "-c", query]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env={"LC_ALL": "C.UTF-8"})
        return [line.split("|") for line in done.stdout.splitlines()]
