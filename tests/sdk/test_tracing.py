"""Traces, as a collector gets them over OTLP, and as an upstream sees its place in them."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from websockets.sync.client import connect

from own import OwnGateway, free_ports, until

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


class Quiet(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def body(self):
        return self.rfile.read(int(self.headers["content-length"]))

    def answer(self, status, text=b"", kind="application/json"):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)


class Collector(Quiet):
    def do_POST(self):
        request = ExportTraceServiceRequest.FromString(self.body())
        assert (self.path, self.headers["x-token"]) == ("/v1/traces", "s3cret")
        for group in request.resource_spans:
            resource = {each.key: each.value.string_value for each in group.resource.attributes}
            assert resource["service.name"] == "gate" and "service.version" in resource
            self.server.spans += [span for scope in group.scope_spans for span in scope.spans]
        self.answer(200, kind="application/x-protobuf")


class Upstream(Quiet):
    """Fails once if the model says so."""

    def do_POST(self):
        model = json.loads(self.body())["model"]
        self.server.seen.append(self.headers["traceparent"])
        self.server.states.append(self.headers["tracestate"])
        if model == "mock-flaky" and len(self.server.seen) == 1:
            return self.answer(500, b"{}")
        whole = {"id": "c1", "model": model, "choices": [{"finish_reason": "stop"}], "usage": USAGE}
        self.answer(200, json.dumps(whole).encode())


def serve(handler, **more):
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.__dict__.update(more)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.fixture
def traced(tmp_path):
    collector, upstream = serve(Collector, spans=[]), serve(Upstream, seen=[], states=[])
    [mock] = free_ports(1)
    up = {"kind": "openai", "base_url": f"http://127.0.0.1:{upstream.server_port}/v1", "api_key": "sk-secret", "prices": "mock"}
    settings = {
        "providers": {"up": up | {"models": ["mock-flaky", "mock-steady"]}, "again": up},
        "aliases": {"flaky": ["up/mock-flaky", "again/mock-flaky"]},
        "tracing": {"endpoint": f"http://127.0.0.1:{collector.server_port}", "headers": {"x-token": "s3cret"}, "service": "gate"},
    }
    with OwnGateway(tmp_path, settings, mock=mock) as gateway:
        gateway.collector, gateway.upstream = collector, upstream
        yield gateway
    collector.shutdown()
    upstream.shutdown()


def ask(gateway, model, flags=None, **more):
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-{flags}"} if flags else {}
    return gateway.http.post("/v1/chat/completions", json={"model": model, "messages": [], **more}, headers=headers | {"tracestate": "a=b"})


def told(span):
    kinds = ("string_value", "int_value", "bool_value", "double_value")
    return {each.key: next(getattr(each.value, kind) for kind in kinds if each.value.HasField(kind)) for each in span.attributes}


def test_a_span_for_the_exchange_and_each_attempt(traced):
    assert ask(traced, "flaky", "01").status_code == 200
    until(lambda: len(traced.collector.spans) == 3, traced.said)
    by_kind = {kind: [span for span in traced.collector.spans if span.kind == kind] for kind in (2, 3)}
    [exchange], attempts = by_kind[2], sorted(by_kind[3], key=lambda span: told(span)["tollgate.attempt"])
    assert {span.trace_id.hex() for span in traced.collector.spans} == {TRACE}
    assert (exchange.parent_span_id.hex(), exchange.name, told(exchange)["http.response.status_code"]) == (PARENT, "POST", 200)
    assert told(exchange)["url.scheme"] == "http"
    assert [span.parent_span_id for span in attempts] == [exchange.span_id] * 2
    # Each upstream is told its own place, and the caller's state goes on.
    assert traced.upstream.seen == [f"00-{TRACE}-{span.span_id.hex()}-01" for span in attempts]
    assert traced.upstream.states == ["a=b"] * 2
    failed, paid = map(told, attempts)
    assert (failed["tollgate.outcome"], failed["http.response.status_code"], attempts[0].status.code) == ("upstream_error", 500, 2)
    wanted = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "mock-flaky", "gen_ai.response.id": "c1"}
    wanted |= {"server.address": "127.0.0.1", "gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 5, "tollgate.outcome": "ok", "tollgate.usage_source": "reported"}
    assert wanted.items() <= paid.items()
    entry = next(entry for entry in traced.entries() if entry["id"] == paid["tollgate.entry_id"])
    assert attempts[1].start_time_unix_nano // 10**6 == entry["start_ms"] and attempts[1].end_time_unix_nano // 10**6 == entry["end_ms"]
    assert [event.name for event in attempts[1].events] == ["first byte"]
    assert exchange.start_time_unix_nano <= attempts[0].start_time_unix_nano and exchange.end_time_unix_nano >= attempts[1].end_time_unix_nano
    assert "sk-secret" not in str(traced.collector.spans)


def test_what_is_not_sampled_passes_as_it_is(traced):
    assert ask(traced, "mock-steady", "00").status_code == 200
    assert ask(traced, "mock-steady").status_code == 200
    assert traced.upstream.seen == [f"00-{TRACE}-{PARENT}-00", None]
    # Refused before an attempt: a span of its own.
    assert ask(traced, "nobody-serves-this", "01").status_code == 404
    until(lambda: traced.collector.spans, traced.said)
    time.sleep(1)
    [refused] = traced.collector.spans
    assert told(refused)["error.type"] == "model_not_found" and told(refused)["http.response.status_code"] == 404


def test_it_begins_traces_of_its_own(tmp_path):
    collector, [mock] = serve(Collector, spans=[]), free_ports(1)
    tracing = {"endpoint": f"http://127.0.0.1:{collector.server_port}", "headers": {"x-token": "s3cret"}, "service": "gate", "sample": 1}
    with OwnGateway(tmp_path, {"tracing": tracing}, mock=mock) as gateway:
        for _ in range(3):
            assert gateway.http.post("/v1/images/generations", json={"model": "mock-image", "prompt": "x"}, headers={"x-provider": "mock"}).status_code == 200
        until(lambda: sum(span.kind == 3 for span in collector.spans) == 3, gateway.said)
        attempts = [span for span in collector.spans if span.kind == 3]
        assert len({span.trace_id for span in attempts}) == 3 and {span.name for span in attempts} == {"image_generation mock-image"}
        assert {told(span)["gen_ai.operation.name"] for span in attempts} == {"image_generation"}
    collector.shutdown()


def test_turns_of_a_websocket(traced):
    url = traced.url.replace("http", "ws") + "/v1/responses"
    with connect(url, additional_headers={"x-provider": "mock", "traceparent": f"00-{TRACE}-{PARENT}-01"}, proxy=None) as socket:
        for _ in range(2):
            socket.send(json.dumps({"type": "response.create", "model": "mock-small", "input": "hi"}))
            while json.loads(socket.recv(timeout=10))["type"] != "response.completed":
                pass
    until(lambda: len(traced.collector.spans) == 3, traced.said)
    turns = [span for span in traced.collector.spans if span.kind == 3]
    assert len({span.span_id for span in turns}) == 2 and {told(span)["tollgate.outcome"] for span in turns} == {"ok"}


def test_a_collector_that_is_out_holds_nobody_up(traced):
    traced.collector.shutdown()
    traced.collector.server_close()
    before = time.monotonic()
    assert {ask(traced, "mock-steady", "01").status_code for _ in range(20)} == {200}
    assert time.monotonic() - before < 5
    until(lambda: "traces cannot be sent" in traced.said())
    assert "s3cret" not in traced.said()
