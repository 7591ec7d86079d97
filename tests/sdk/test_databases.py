"""Where copies of the ledger go: PostgreSQL, a real one; ClickHouse and Kafka as far as they are asked."""

import json
import os
import re
import subprocess
import threading
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import trustme

from kafka import Broker
from own import OwnGateway, free_ports, until
from postgresql import PostgreSQL

BODY = {"model": "mock-small?input=1000&cached=0&output=100&reasoning=0", "messages": []}
# A thousand at a dollar and a hundred at five dollars the million.
USD = Decimal("0.0015")


class Gateway(OwnGateway):
    def __init__(self, folder, sinks, **more):
        folder.mkdir(exist_ok=True)
        mock, admin = free_ports(2)
        self.admin = f"http://127.0.0.1:{admin}"
        super().__init__(folder, {"admin": f"127.0.0.1:{admin}", "sinks": sinks}, mock=mock, **more)

    def ask(self, times, **body):
        answers = [self.http.post("/v1/chat/completions", json=BODY | body) for _ in range(times)]
        assert {answer.status_code for answer in answers} == {200}
        return {answer.headers["x-gateway-request-id"] for answer in answers}

    def metric(self, name):
        lines = self.http.get(f"{self.admin}/metrics").text.splitlines()
        return next((int(line.split()[-1]) for line in lines if line.startswith(name)), 0)


@pytest.fixture
def postgres():
    if not PostgreSQL.tools():
        pytest.skip("there is no PostgreSQL server on this machine")
    authority = trustme.CA()
    server = PostgreSQL(authority.cert_pem, authority.issue_cert("localhost"))
    server.start()
    yield server
    server.remove()


def test_postgres_has_every_entry_once(tmp_path, postgres):
    sinks = {"postgres": {"url": postgres.url, "ca": str(postgres.ca)}}
    with Gateway(tmp_path / "one", sinks) as gateway:
        asked = gateway.ask(5, user="u\0-ü")
        until(lambda: gateway.metric('tollgate_sink_entries_total{sink="postgres"}') == 5, gateway.said)
        postgres.stop()
        # One that is out holds nobody up.
        asked |= gateway.ask(20)
        until(lambda: gateway.metric('tollgate_sink_failures_total{sink="postgres"}') >= 2)
        postgres.start()
        until(lambda: gateway.metric('tollgate_sink_entries_total{sink="postgres"}') == 25, gateway.said)
        assert "s3cret" not in gateway.said()
    # Another gateway shares the tables; one that has forgotten how far it got tells it all again.
    (tmp_path / "one/sinks/postgres.json").unlink()
    with Gateway(tmp_path / "one", sinks) as gateway, Gateway(tmp_path / "two", sinks) as second:
        asked |= gateway.ask(3) | second.ask(3)
        until(lambda: gateway.metric('tollgate_sink_entries_total{sink="postgres"}') == 28, gateway.said)
        until(lambda: second.metric('tollgate_sink_entries_total{sink="postgres"}') == 3, second.said)
    # So is what was written down before a kill.
    killed = Gateway(tmp_path / "one", sinks)
    asked |= killed.ask(20)
    killed.process.kill()
    killed.process.wait()
    with Gateway(tmp_path / "one", sinks) as gateway:
        until(lambda: postgres.ask("SELECT count(*) FROM tollgate_entries") == [["51"]], gateway.said)
    rows = postgres.ask("SELECT request_id, outcome, usd, end_user, ended >= started, tags FROM tollgate_entries")
    assert len(rows) == 51 and {row[0] for row in rows} == asked
    # What was used was on record before the kill, the end of the last requests may not have been.
    assert {(row[1], row[4]) for row in rows} <= {("ok", "t"), ("interrupted", "")}
    assert {(Decimal(row[2]), row[5]) for row in rows} == {(USD, "{}")}
    assert sorted({row[3] for row in rows}) == ["", "u\ufffd-ü"]
    lines = postgres.ask("SELECT model, usage->>'input', usage->>'output', sum(usd), count(*) FROM tollgate_lines GROUP BY 1, 2, 3")
    assert [(*line[:3], Decimal(line[3]), line[4]) for line in lines] == [("mock-small", "1000", "100", 51 * USD, "51")]


def test_postgres_takes_entries_of_a_role_that_may_only_insert(tmp_path, postgres):
    sinks = {"postgres": {"url": postgres.url, "ca": str(postgres.ca)}}
    with Gateway(tmp_path / "one", sinks) as gateway:
        gateway.ask(1)
        until(lambda: gateway.metric('tollgate_sink_entries_total{sink="postgres"}') == 1, gateway.said)
    postgres.ask("REVOKE CREATE ON SCHEMA public FROM PUBLIC; CREATE ROLE clerk LOGIN PASSWORD 's3cret';"
                 "GRANT INSERT, SELECT ON tollgate_entries, tollgate_lines, tollgate_migrations TO clerk")
    sinks["postgres"]["url"] = postgres.url.replace("owner", "clerk")
    with Gateway(tmp_path / "two", sinks) as gateway:
        gateway.ask(2)
        until(lambda: gateway.metric('tollgate_sink_entries_total{sink="postgres"}') == 2, gateway.said)
    assert postgres.ask("SELECT count(*), count(DISTINCT id) FROM tollgate_entries") == [["3", "3"]]
    # What the documents ask can be asked.
    text = (Path(__file__).parents[2] / "docs/sinks.md").read_text()
    [queries] = [block for block in text.split("```sql\n")[1:] if "tollgate_entries" in block]
    answers = [postgres.ask(query) for query in queries.split("```")[0].split(";\n") if query.strip()]
    assert len(answers) == 2 and all(answers)


def test_the_lag_of_a_sink_that_is_out_is_told(tmp_path):
    [nobody] = free_ports(1)
    with Gateway(tmp_path / "one", {"postgres": {"url": f"postgres://u:s3cret@127.0.0.1:{nobody}/db"}}) as gateway:
        gateway.ask(5)
        until(lambda: gateway.metric('tollgate_sink_lag_bytes{sink="postgres"}') > 2000, gateway.said)
        assert gateway.metric('tollgate_sink_lag_bytes{sink="sqlite"}') == 0


def test_postgres_without_a_certificate_that_holds_gets_nothing(tmp_path, postgres):
    stranger = tmp_path / "stranger.pem"
    trustme.CA().cert_pem.write_to_path(stranger)
    with Gateway(tmp_path / "one", {"postgres": {"url": postgres.url, "ca": str(stranger)}}) as gateway:
        gateway.ask(1)
        until(lambda: gateway.metric('tollgate_sink_failures_total{sink="postgres"}') >= 1)
        assert "s3cret" not in gateway.said()
    assert postgres.ask("SELECT to_regclass('tollgate_entries')") == [[""]]


class ClickHouse(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_POST(self):
        query = {name: value for name, [value] in parse_qs(urlsplit(self.path).query).items()}
        body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        allowed = (self.headers["x-clickhouse-user"], self.headers["x-clickhouse-key"]) == ("writer", "s3cret")
        self.server.asked += 1
        taken = allowed and self.server.taking
        if taken:
            self.server.done.append((query, [json.loads(line) for line in body.splitlines()]))
        self.send_response(200 if taken else 403)
        answer = b"" if taken else b"Code: 516. DB::Exception: no"
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


@pytest.fixture
def clickhouse():
    server = ThreadingHTTPServer(("127.0.0.1", 0), ClickHouse)
    server.asked, server.done, server.taking = 0, [], True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_clickhouse_has_a_row_a_line(tmp_path, clickhouse):
    rules = {"url": f"http://127.0.0.1:{clickhouse.server_port}", "database": "bills", "user": "writer", "password": "s3cret"}
    clickhouse.taking = False
    with Gateway(tmp_path / "one", {"clickhouse": rules}) as gateway:
        asked = gateway.ask(5)
        until(lambda: clickhouse.asked >= 2)
        assert "DB::Exception: no" in gateway.said() and "s3cret" not in gateway.said()
        clickhouse.taking = True
        until(lambda: gateway.metric('tollgate_sink_entries_total{sink="clickhouse"}') == 5, gateway.said)
    [(table, _), *inserts] = clickhouse.done
    assert table["database"] == "bills" and table["query"].startswith("CREATE TABLE IF NOT EXISTS tollgate_lines (")
    [(altered, _), *inserts] = inserts
    added = re.findall(r"ADD COLUMN IF NOT EXISTS (\w+)", altered["query"])
    assert altered["query"].startswith("ALTER TABLE tollgate_lines ADD COLUMN ") and added == ["cause", "unknown", "complete", "free"]
    assert {query["query"] for query, _ in inserts} == {"INSERT INTO tollgate_lines SETTINGS async_insert = 0 FORMAT JSONEachRow"}
    assert len({query["insert_deduplication_token"] for query, _ in inserts}) == len(inserts)
    rows = [row for _, rows in inserts for row in rows]
    assert {row["request_id"] for row in rows} == asked
    assert {(row["usd"], row["line"], row["usage"]["input"], row["outcome"]) for row in rows} == {("0.0015", 0, 1000, "ok")}
    assert all(column.split()[0] in row for row in rows for column in columns_of(table["query"]))
    assert all(len(row) == len(columns_of(table["query"])) for row in rows)


def columns_of(table):
    """What stands between commas outside all brackets but the first."""
    columns, depth, column = [], 0, ""
    for letter in table.split("(", 1)[1]:
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if depth < 0:
            break
        if letter == "," and depth == 0:
            columns.append(column.strip())
            column = ""
        else:
            column += letter
    return [*columns, column.strip()]


def test_kafka_has_a_message_an_entry(tmp_path):
    broker = Broker("bills", 3)
    broker.taking = False
    rules = {"brokers": [f"127.0.0.1:{broker.server_address[1]}"], "topic": "bills"}
    with Gateway(tmp_path / "one", {"kafka": rules}) as gateway:
        asked = gateway.ask(30)
        until(lambda: broker.asked >= 1)
        broker.taking = True
        until(lambda: gateway.metric('tollgate_sink_entries_total{sink="kafka"}') == 30, gateway.said)
        asked |= gateway.ask(1)
        until(lambda: gateway.metric('tollgate_sink_entries_total{sink="kafka"}') == 31, gateway.said)
    entries = {key.decode(): json.loads(value) for _, key, value in broker.records}
    assert {entry["request_id"] for entry in entries.values()} == asked
    assert all(key == entry["id"] and entry["total"] == "1500000000" for key, entry in entries.items())
    assert {partition for partition, *_ in broker.records} == {0, 1, 2}
    broker.shutdown()
    broker.server_close()


def test_a_topic_that_is_not_there_is_said(tmp_path):
    broker = Broker("other", 1)
    rules = {"brokers": [f"127.0.0.1:{broker.server_address[1]}"], "topic": "bills"}
    with Gateway(tmp_path / "one", {"kafka": rules}) as gateway:
        until(lambda: "there is no topic `bills`" in gateway.said())
    broker.shutdown()
    broker.server_close()


@pytest.mark.parametrize(
    ("sinks", "told"),
    [
        ({"postgres": {"url": "postgres://u:s3cret@h:port/x"}}, "must be that of a database"),
        ({"postgres": {"ca": "/nowhere.pem", "url": "postgres://h/x"}}, "/nowhere.pem"),
        ({"clickhouse": {"url": "clickhouse:9000"}}, "needs its `url`"),
        ({"kafka": {"brokers": ["kafka"]}}, "needs its `brokers`"),
        ({"kafka": {"brokers": ["kafka:9092"], "user": "u"}}, "go together"),
    ],
)
def test_mistakes_are_told(tmp_path, sinks, told):
    path = tmp_path / "tollgate.yaml"
    path.write_text(json.dumps({"sinks": sinks}))
    done = subprocess.run([os.environ["TOLLGATE_BINARY"], "check", "-c", path], capture_output=True, text=True)
    assert done.returncode != 0 and told in done.stdout + done.stderr and "s3cret" not in done.stdout + done.stderr
