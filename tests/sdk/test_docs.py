"""Commands and code in documents, run as they stand there. Paths of a host and ports are those of the test."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from own import OwnGateway, free_ports, until

ROOT = Path(__file__).parents[2]
DOCUMENTS = ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]


def blocks(path, kind):
    return re.findall(rf"^```{re.escape(kind)}\n(.*?)^```$", (ROOT / path).read_text(), re.M | re.S)


def everywhere(kind):
    return [pytest.param(block, id=f"{path}:{at}") for path in DOCUMENTS for at, block in enumerate(blocks(path, kind))]


class Gateway(OwnGateway):
    """Knows what the README asks for, played by the mock."""

    def __init__(self, folder, **more):
        mock, self.admin = free_ports(2)
        self.mock = f"http://127.0.0.1:{mock}"
        played = {name: {"base_url": f"{self.mock}/v1", "api_key": "none"} for name in ("openai", "anthropic")}
        super().__init__(folder, {"admin": f"127.0.0.1:{self.admin}", "providers": played} | more, mock=mock)


def run(script, folder, **environment):
    """In a shell that finds the gateway's command."""
    bin = folder / "bin"
    bin.mkdir(exist_ok=True)
    if not (bin / "tollgate").exists():
        (bin / "tollgate").symlink_to(os.environ["TOLLGATE_BINARY"])
    path = f"{bin}:{os.environ['PATH']}"
    return subprocess.run(["bash", "-euo", "pipefail", "-c", script], cwd=folder, capture_output=True, text=True, env=os.environ | environment | {"PATH": path})


@pytest.mark.parametrize("block", everywhere("python"))
def test_python(block, tmp_path):
    with Gateway(tmp_path) as gateway:
        exec(block.replace("http://127.0.0.1:8080", gateway.url), {})
        until(lambda: len([line for line in gateway.entries() if line.get("endpoint")]) == 2)
        assert [line["outcome"] for line in gateway.entries() if line.get("endpoint")] == ["ok", "ok"]


def test_targets_of_make():
    for block in blocks("README.md", "sh"):
        for target in re.findall(r"^(?:[A-Z_]+=\S+ )*make (\w+)$", block, re.M):
            subprocess.run(["make", "-n", target], cwd=ROOT, check=True, capture_output=True)


# What a configuration must hold for the commands of a block, and what they need beside it.
MISTAKEN = "listen: 127.0.0.1:8080\nworkers: many\nproviders:\n  own:\n    base_urll: http://127.0.0.1:1\n    base_url: http://127.0.0.1:1\n"


@pytest.mark.parametrize("block", everywhere("console"))
def test_console(block, tmp_path):
    """Lines after a `$` are run; what follows them is what they print, keys and prices of the day apart."""
    config = tmp_path / "my.yaml"
    good = {"keys": {}, "data": str(tmp_path / "data"), "providers": {"openai": {"api_key": "none"}}}
    config.write_text(MISTAKEN if " check " in block else json.dumps(good))
    litellm = {"gpt-4o": {"litellm_provider": "openai", "mode": "chat", "input_cost_per_token": 2.5e-06, "output_cost_per_token": 1e-05}}
    devs = {"openai": {"id": "openai", "models": {"gpt-4o": {"id": "gpt-4o", "cost": {"input": 2.5, "output": 10}}}}}
    for name, prices in (("litellm", litellm), ("models.dev", devs)):
        (tmp_path / f"{name}.json").write_text(json.dumps(prices))
    for command, told in re.findall(r"^\$ (.*)\n((?:[^$].*\n)*)", block, re.M):
        # Nothing is fetched here.
        command = re.sub(r"prices import (\S+)", rf"prices import \1 {tmp_path}/\1.json", command)
        command = re.sub(r"prices diff ([\w.]+)=\S+", rf"prices diff \1={tmp_path}/\1.json", command)
        command = re.sub(r"prices diff +#", f"prices diff litellm={tmp_path}/litellm.json models.dev={tmp_path}/models.dev.json #", command)
        done = run(command, tmp_path)
        said = done.stdout + done.stderr
        assert (done.returncode == 0) == ("mistake" not in told), f"{command}: {said}"
        key = r"tg_[0-9a-f]{16}_[\w-]{43}"
        for line in filter(None, told.splitlines()):
            if re.fullmatch(key, line):
                assert re.search(key, said), said
            else:
                assert line in said.splitlines(), said


def test_commands_on_a_host(tmp_path):
    host, settings = tmp_path / "host", {"keys": {}, "admin_token": "${ADMIN_TOKEN}"}
    os.environ["ADMIN_TOKEN"] = "a-token-of-some-length"
    with Gateway(tmp_path, **settings):
        del os.environ["ADMIN_TOKEN"]
        host.mkdir()
        (host / "environment").write_text("ADMIN_TOKEN=a-token-of-some-length\n")
        [block] = [block for block in blocks("docs/operations.md", "sh") if "tollgate" in block]
        block = block.replace("/etc/tollgate/environment", f"{host}/environment").replace("/etc/tollgate/tollgate.yaml", f"{tmp_path}/tollgate.yaml")
        done = run(block.replace("/var/lib/tollgate", str(tmp_path)), host)
        assert done.returncode == 0 and re.search(r"^tg_", done.stdout, re.M) and "org" in done.stdout, done.stdout + done.stderr


def test_shell_blocks_are_known():
    """Those that neither this nor tests/readme.sh runs are somebody else's commands."""
    for path in DOCUMENTS:
        text = (ROOT / path).read_text()
        for block in blocks(path, "sh"):
            marked = f"<!-- run -->\n```sh\n{block}" in text
            made = all(re.fullmatch(r"(?:[A-Z_]+=\S+ )*make \w+", line) for line in block.splitlines())
            assert marked or made or "/etc/tollgate/environment" in block or block.startswith("kafka-topics.sh"), f"{path}: {block}"


def test_a_fixture_comes_out_as_it_says(tmp_path):
    [block] = blocks("docs/adding-a-provider.md", "text fixture")
    head, body = block.split("---\n")
    want = json.loads(re.search(r"^want: (.*)$", head, re.M)[1])
    (tmp_path / "answer.json").write_text(body)
    done = run("tollgate replay --json --dialect chat answer.json", tmp_path)
    [line] = json.loads(done.stdout)["usage"]["lines"]
    assert line["usage"] == want["usage"]


@pytest.mark.skipif(not shutil.which("promtool"), reason="there is no promtool on this machine")
def test_prometheus(tmp_path):
    [block] = blocks("docs/operations.md", "yaml prometheus")
    (tmp_path / "prometheus.yml").write_text(block)
    shutil.copy(ROOT / "conf/alerts.yaml", tmp_path)
    subprocess.run(["promtool", "check", "config", "--syntax-only", tmp_path / "prometheus.yml"], check=True)


@pytest.mark.skipif(not shutil.which("promtool"), reason="there is no promtool on this machine")
def test_what_grafana_asks_can_be_asked(tmp_path):
    """Its variables filled in as Grafana would, each expression parses, by labels that the metrics have."""
    board = json.loads((ROOT / "conf/grafana.json").read_text())
    asked = re.findall(r'"expr": "((?:[^"\\]|\\.)*)"', json.dumps(board))
    assert len(asked) > 10
    metrics = (ROOT / "docs/metrics.md").read_text()
    known = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in re.findall(r"^\| `(tollgate_\w+)` \| \w+ \| (.*?) \|", metrics, re.M)}
    rules = []
    for at, text in enumerate(asked):
        text = json.loads(f'"{text}"').replace("$__rate_interval", "5m").replace("$__range", "1h").replace("$__interval", "1m")
        rules.append({"record": f"asked:{at}", "expr": re.sub(r"\$\{?\w+\}?", "x", text)})
        for name in re.findall(r"tollgate_\w+", text):
            labels = set(re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"', text)) - {"job", "instance", "le"}
            metric = re.sub("_(bucket|sum|count)$", "", name)
            assert labels <= known.get(metric, known.get(name, set())), text
    (tmp_path / "rules.yaml").write_text(json.dumps({"groups": [{"name": "asked", "rules": rules}]}))
    subprocess.run(["promtool", "check", "rules", tmp_path / "rules.yaml"], check=True, capture_output=True)


@pytest.mark.skipif(subprocess.run("docker info", shell=True, capture_output=True).returncode != 0, reason="no Docker answers on this machine")
def test_docker():
    [block] = blocks("docs/operations.md", "sh docker")
    subprocess.run(block.splitlines()[0], shell=True, cwd=ROOT, check=True)


def test_the_manual_and_completions(tmp_path):
    assert run("tollgate man --into . && tollgate man > page.1", tmp_path).returncode == 0
    pages = {path.name for path in tmp_path.glob("*.1")}
    assert {"tollgate.1", "tollgate-run.1", "tollgate-keys-add.1", "tollgate-usage.1"} <= pages
    for name in re.findall(r"tollgate\\-([\w\\-]+)\(1\)", (tmp_path / "tollgate.1").read_text()):
        assert f"tollgate-{name.replace(chr(92), '')}.1" in pages, name
    for shell in ("bash", "zsh", "fish"):
        assert "tollgate" in run(f"tollgate completions {shell}", tmp_path).stdout
