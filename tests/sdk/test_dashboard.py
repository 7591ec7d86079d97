"""The dashboard in a real browser: no complaint on its console, and the numbers that the API returns."""

import json
import re
import shutil
import sqlite3
import subprocess
import time
from html.parser import HTMLParser

import pytest

from own import OwnGateway, free_ports, until

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium on this machine")


class Page(HTMLParser):
    """Texts of the tiles, and of the rows of tables by their ids."""

    def __init__(self, text):
        super().__init__()
        self.tiles, self.tables, self.state, self._tile, self._table, self._row = {}, {}, "", None, None, None
        self.feed(text)

    def handle_starttag(self, tag, pairs):
        attributes = dict(pairs)
        if tag == "dd":
            self._tile = attributes.get("data-name")
        if tag == "table":
            self._table = self.tables.setdefault(attributes.get("id"), [])
        if tag == "tr" and self._table is not None:
            self._row = []
            self._table.append(self._row)
        if tag in ("td", "th") and self._row is not None:
            self._row.append("")

    def handle_endtag(self, tag):
        if tag == "dd":
            self._tile = None
        if tag == "table":
            self._table = self._row = None

    def handle_data(self, data):
        if self._tile:
            self.tiles[self._tile] = self.tiles.get(self._tile, "") + data
        elif self._row:
            self._row[-1] += data


def look(url, folder, *more):
    """The page as it stands after a while, and what its console said."""
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr", "--v=0"]
    profile = f"--user-data-dir={folder}/profile"
    done = subprocess.run(
        [CHROMIUM, *options, profile, "--virtual-time-budget=8000", *more, "--dump-dom", url], capture_output=True, text=True, timeout=120
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


class Gateway(OwnGateway):
    def __init__(self, folder, **more):
        mock, admin = free_ports(2)
        self.admin = f"http://127.0.0.1:{admin}"
        super().__init__(folder, {"admin": f"127.0.0.1:{admin}"} | more, mock=mock)

    def overview(self):
        return self.http.get(f"{self.admin}/overview").json()


def test_it_shows_what_the_api_returns(tmp_path):
    with Gateway(tmp_path) as gateway:
        for model in ("mock-small?input=1000&output=100&cached=0&reasoning=0", "mock-small?error=500", "<img src=x onerror=alert(1)>"):
            gateway.http.post("/mock/v1/chat/completions", json={"model": model, "messages": []})
        until(lambda: gateway.overview()["total"]["requests"] == 3)
        dom, console = look(f"{gateway.admin}/", tmp_path)
        assert console == [] and 'data-shown="yes"' in dom
        page, total = Page(dom), gateway.overview()["total"]
        assert (page.tiles["Requests"], page.tiles["Errors"]) == (str(total["requests"]), f"{100 * total['errors'] / total['requests']:.1f} %")
        bill = {row[0]: row[-1] for row in page.tables["groups"][1:]}
        assert bill == {row["model"]: row["usd"] for row in gateway.http.get(f"{gateway.admin}/usage?since=24h").json()}
        assert page.tables["dearest"][1][-1] == gateway.overview()["dearest"][0]["request_id"]
        # What callers write is text, and nothing else.
        assert "<img" not in dom and "&lt;img src=x" in dom
        assert dom.count("<canvas") == 3


def test_it_asks_for_the_token(tmp_path):
    with Gateway(tmp_path, admin_token="a-token-of-some-length") as gateway:
        dom, _ = look(f"{gateway.admin}/", tmp_path)
        assert "an admin token is needed" in dom and not re.search('id="login"[^>]*hidden', dom)


def test_a_hundred_thousand_entries(tmp_path):
    with Gateway(tmp_path) as gateway:
        gateway.http.post("/v1/chat/completions", json={"model": "mock-small?input=1000&output=100&cached=0&reasoning=0", "messages": []})
        until(lambda: gateway.overview()["total"]["requests"] == 1)
        database = sqlite3.connect(tmp_path / "usage.db")
        until(lambda: database.execute("SELECT count(*) FROM lines").fetchone() == (1,))
        columns = [row[1] for row in database.execute("PRAGMA table_info(entries)")]
        copied = ", ".join({"id": "'copy-' || n", "start_ms": "start_ms - n * 800"}.get(name, name) for name in columns)
        numbers = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 99999)"
        database.execute(f"INSERT INTO entries {numbers} SELECT {copied} FROM entries, numbers")
        columns = [row[1] for row in database.execute("PRAGMA table_info(lines)")]
        copied = ", ".join({"entry": "'copy-' || n"}.get(name, name) for name in columns)
        database.execute(f"INSERT INTO lines {numbers} SELECT {copied} FROM lines, numbers")
        database.commit()
        database.close()
        began = time.monotonic()
        assert gateway.overview()["total"]["requests"] == 100_000
        print(f"overview of 100,000 entries: {time.monotonic() - began:.2f} s")
        dom, console = look(f"{gateway.admin}/", tmp_path)
        assert console == [] and Page(dom).tiles["Requests"] == "100,000"
        assert json.loads(gateway.http.get(f"{gateway.admin}/usage").text)[0]["requests"] == 100_000
