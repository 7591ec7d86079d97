"""The dashboard in a real browser: no complaint on its console, and the numbers that the API returns."""

import base64
import json
import re
import shutil
import sqlite3
import subprocess

import httpx2
import pytest
from websockets.sync.client import connect

from own import OwnGateway, free_ports, until

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium on this machine")
TOKEN = "a-token-of-some-length"


class Browser:
    """A page of headless Chromium, driven as its developer tools are: https://chromedevtools.github.io/devtools-protocol/"""

    def __init__(self, folder):
        profile = folder / "profile"
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-port=0"]
        with (folder / "chromium").open("w") as log:
            self.process = subprocess.Popen([CHROMIUM, *options, f"--user-data-dir={profile}", "about:blank"], stdout=log, stderr=log)
        port = profile / "DevToolsActivePort"
        until(lambda: port.exists() and "\n" in port.read_text(), lambda: (folder / "chromium").read_text())
        debugging = f"http://127.0.0.1:{port.read_text().splitlines()[0]}/json"
        until(lambda: any(each["type"] == "page" for each in httpx2.get(debugging, trust_env=False).json()))
        [target, *_] = [each for each in httpx2.get(debugging, trust_env=False).json() if each["type"] == "page"]
        self.socket = connect(target["webSocketDebuggerUrl"], max_size=None, proxy=None)
        self.last, self.console = 0, []
        for domain in ("Page", "Runtime", "Log", "Accessibility"):
            self.call(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()
        self.process.terminate()
        self.process.wait(10)

    def call(self, method, **parameters):
        self.last += 1
        self.socket.send(json.dumps({"id": self.last, "method": method, "params": parameters}))
        while True:
            said = json.loads(self.socket.recv(timeout=60))
            if said.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
                self.console.append(said["params"])
            if said.get("id") == self.last:
                assert "error" not in said, said
                return said["result"]

    def run(self, script):
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def go(self, url):
        self.call("Page.navigate", url=url)

    def shows(self, script):
        """Waits for something to be so; while a page loads nothing is."""
        until(lambda: self.run(f"(() => {{ try {{ return {script} }} catch {{ return false }} }})()"), lambda: self.run("document.body.innerText"))

    def be(self, *, width=1200, height=900, dark=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def press(self, key):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode={"Tab": 9, "Enter": 13}[key], text="\r" if key == "Enter" else "")

    def cells(self, table):
        script = f"[...document.querySelectorAll('#{table} tr')].map(row => [...row.cells].map(cell => cell.textContent))"
        return self.run(script)

    def tiles(self):
        return self.run("Object.fromEntries([...document.querySelectorAll('#total dd')].map(each => [each.dataset.name, each.textContent]))")

    def tree(self):
        """What a screen reader reads: role and name of each node."""
        nodes = self.call("Accessibility.getFullAXTree")["nodes"]
        text = lambda node, field: str(node.get(field, {}).get("value", ""))
        return [(text(node, "role"), text(node, "name")) for node in nodes if not node.get("ignored")]

    def look(self, path):
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]))


@pytest.fixture
def browser(tmp_path):
    with Browser(tmp_path) as browser:
        yield browser


SHOWN = "'shown' in document.body.dataset"


class Gateway(OwnGateway):
    def __init__(self, folder, **more):
        mock, admin = free_ports(2)
        self.admin = f"http://127.0.0.1:{admin}"
        super().__init__(folder, {"admin": f"127.0.0.1:{admin}"} | more, mock=mock)

    def overview(self):
        return self.http.get(f"{self.admin}/overview").json()


def test_it_shows_what_the_api_returns(tmp_path, browser):
    with Gateway(tmp_path) as gateway:
        for model in ("mock-small?input=1000&output=100&cached=0&reasoning=0", "mock-small?error=500", "<img src=x onerror=alert(1)>"):
            gateway.http.post("/mock/v1/chat/completions", json={"model": model, "messages": []})
        until(lambda: gateway.overview()["total"]["requests"] == 3)
        browser.go(f"{gateway.admin}/")
        browser.shows(SHOWN)
        assert browser.console == []
        tiles, total = browser.tiles(), gateway.overview()["total"]
        assert (tiles["Attempts"], tiles["Errors"]) == (str(total["requests"]), f"{100 * total['errors'] / total['requests']:.1f} %")
        bill = {row[0]: row[-1] for row in browser.cells("groups")[1:]}
        assert bill == {row["model"]: row["usd"] for row in gateway.http.get(f"{gateway.admin}/usage?since=24h").json()}
        dearest = gateway.overview()["dearest"][0]["request_id"]
        assert browser.cells("dearest")[1][-1] == dearest
        # What callers write is text, and nothing else.
        assert browser.run("document.querySelectorAll('img').length") == 0
        assert any("<img src=x" in row[0] for row in browser.cells("groups"))
        assert browser.run("document.querySelectorAll('canvas').length") == 4
        # One request, by its name.
        browser.run("document.querySelector('#dearest tbody button').click()")
        browser.shows("document.getElementById('request').open && document.getElementById('entries').textContent.includes('total')")
        assert dearest in browser.run("document.getElementById('request').innerText")


def test_a_group_can_be_looked_into_and_shared(tmp_path, browser):
    settings = {"keys": {}, "admin_token": TOKEN}
    with Gateway(tmp_path, **settings) as gateway:
        keys = {}
        for org, project in (("acme", "shop"), ("acme", "site"), ("other", "away")):
            options = ["--org", org, "--project", project]
            done = subprocess.run([gateway.binary, "keys", "-c", gateway.config, "add", project, *options], capture_output=True, text=True, check=True)
            [keys[project]] = re.findall(r"tg_\S+", done.stdout)
        asked = lambda project: gateway.http.post(
            "/v1/chat/completions", json={"model": "mock-small", "messages": []}, headers={"authorization": f"Bearer {keys[project]}"})
        until(lambda: asked("away").status_code == 200)
        assert [asked(project).status_code for project in ("shop", "shop", "site")] == [200] * 3
        browser.go(f"{gateway.admin}/#by=org&since=24h")
        browser.shows("document.activeElement.id === 'token'")
        browser.run(f"document.getElementById('token').value = '{TOKEN}'; document.querySelector('#login button').click()")
        browser.shows("[...document.querySelectorAll('#groups tbody button')].some(each => each.textContent === 'acme')")
        browser.run("[...document.querySelectorAll('#groups tbody button')].find(each => each.textContent === 'acme').click()")
        browser.shows("document.querySelector('#groups th').textContent === 'project'")
        assert {row[0]: row[1] for row in browser.cells("groups")[1:]} == {"shop": "2", "site": "1"}
        assert browser.tiles()["Attempts"] == "3"
        assert browser.run("location.hash").count("org=acme") == 1
        # The same by its address, and back.
        browser.run("document.querySelector('#only button').click()")
        browser.shows("document.querySelector('#groups th').textContent === 'org'")
        assert len(browser.cells("groups")) == 3


def test_it_is_of_use_on_a_phone_in_the_dark_by_keys_and_by_ear(tmp_path, browser):
    with Gateway(tmp_path) as gateway:
        gateway.http.post("/v1/chat/completions", json={"model": "mock-small", "messages": []})
        until(lambda: gateway.overview()["total"]["requests"] == 1)
        for look in ({"width": 360, "height": 740}, {"width": 360, "height": 740, "dark": True}, {}, {"dark": True}):
            browser.be(**look)
            browser.go("about:blank")
            browser.go(f"{gateway.admin}/")
            browser.shows(SHOWN)
            assert browser.run("document.documentElement.scrollWidth <= innerWidth"), look
            ink, ground = (browser.run(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor"))
            assert contrast(ink, ground) >= 7, look
            assert browser.run("getComputedStyle(document.body).backgroundColor === 'rgb(13, 13, 13)'") == look.get("dark", False)
        # By keys: first the way past the controls, then these, then what can be opened.
        reached = []
        for _ in range(12):
            browser.press("Tab")
            reached.append(browser.run("document.activeElement.id || document.activeElement.tagName"))
        assert reached[:3] == ["A", "since", "by"] and reached.count("SUMMARY") == 4, reached
        browser.run("document.querySelector('#usd + details summary').focus()")
        browser.press("Enter")
        browser.shows("document.querySelectorAll('#usd-values tbody tr').length > 10")
        # By ear: every table and graph has a name, and no head of a column is silent.
        tree = browser.tree()
        named = {role: [name for kind, name in tree if kind == role] for role in ("table", "image", "columnheader", "combobox")}
        assert len(named["table"]) >= 7 and len(named["image"]) == 4
        assert all(name.strip() for names in named.values() for name in names), named
        assert browser.run("document.getElementById('trouble').textContent") == ""


def contrast(*colors):
    """https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio"""
    def luminance(color):
        parts = [int(part) / 255 for part in re.findall(r"\d+", color)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted(map(luminance, colors))
    return (high + 0.05) / (low + 0.05)


def test_it_asks_for_the_token(tmp_path, browser):
    with Gateway(tmp_path, admin_token=TOKEN) as gateway:
        browser.go(f"{gateway.admin}/")
        browser.shows("document.getElementById('trouble').textContent.includes('an admin token is needed')")
        assert not browser.run("document.getElementById('login').hidden")


def test_a_hundred_thousand_entries_of_as_many_users(tmp_path, browser):
    with Gateway(tmp_path) as gateway:
        gateway.http.post("/v1/chat/completions", json={"model": "mock-small?input=1000&output=100&cached=0&reasoning=0", "messages": []})
        until(lambda: gateway.overview()["total"]["requests"] == 1)
        database = sqlite3.connect(tmp_path / "usage.db")
        until(lambda: database.execute("SELECT count(*) FROM lines").fetchone() == (1,))
        columns = [row[1] for row in database.execute("PRAGMA table_info(entries)")]
        changed = {"id": "'copy-' || n", "start_ms": "start_ms - n * 800", "end_user": "'user-' || n"}
        copied = ", ".join(changed.get(name, name) for name in columns)
        numbers = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 99999)"
        database.execute(f"INSERT INTO entries {numbers} SELECT {copied} FROM entries, numbers")
        columns = [row[1] for row in database.execute("PRAGMA table_info(lines)")]
        copied = ", ".join({"entry": "'copy-' || n"}.get(name, name) for name in columns)
        database.execute(f"INSERT INTO lines {numbers} SELECT {copied} FROM lines, numbers")
        database.commit()
        database.close()
        for by, rows in (("model", 1), ("user", 101)):
            browser.go("about:blank")
            browser.go(f"{gateway.admin}/#by={by}")
            browser.shows(SHOWN)
            assert browser.console == [] and browser.tiles()["Attempts"] == "100,000"
            assert len(browser.cells("groups")) == rows + 1
            paint = browser.run("performance.getEntriesByName('first-contentful-paint')[0].startTime")
            print(f"by {by}: first paint after {paint:.0f} ms, numbers after {float(browser.run('document.body.dataset.shown')):.0f} ms")
        assert gateway.http.get(f"{gateway.admin}/usage").json()[0]["requests"] == 100_000
