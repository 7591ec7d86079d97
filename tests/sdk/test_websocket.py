"""The Responses API over a WebSocket, between an independent client and an independent server."""

import json
import os
import threading

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.sync.server import serve

from own import OwnGateway, free_ports
from own import until as until_true

USED = {"input": 90, "cache_read": 10, "output": 6, "reasoning": 1}
USAGE = {
    "input_tokens": 100,
    "input_tokens_details": {"cached_tokens": 10},
    "output_tokens": 7,
    "output_tokens_details": {"reasoning_tokens": 1},
    "total_tokens": 107,
}


def response(serial, status, **more):
    return {"type": f"response.{status}", "response": {"id": f"resp_{serial}", "model": "mock-small", "status": status, **more}}


class Provider:
    """Answers each `response.create`; remembers what it got."""

    def __init__(self):
        self.heads, self.messages = [], []

    def handle(self, socket):
        self.heads.append(socket.request.headers)
        for text in socket:
            self.messages.append(text)
            if not isinstance(text, str) or "response.create" not in text:
                continue
            message = json.loads(text)
            serial, status = len(self.messages), message.get("metadata", {}).get("end", "completed")
            socket.send(json.dumps(response(serial, "created", usage=None)))
            delta = json.dumps({"type": "response.output_text.delta", "delta": "ü" * 40_000})
            socket.send(delta[i : i + 999] for i in range(0, len(delta), 999))
            if status == "close":
                return
            if status != "hang":
                socket.send(json.dumps(response(serial, status, usage=USAGE)))


@pytest.fixture
def provider():
    provider = Provider()
    with serve(provider.handle, "127.0.0.1", int(os.environ["TOLLGATE_SOCKET_PORT"]), max_size=None) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield provider
        server.shutdown()
        thread.join()


@pytest.fixture
def socket(gateway, provider):
    url = gateway.replace("http", "ws") + "/v1/responses"
    headers = {"x-provider": "socketed", "authorization": "Bearer callers", "x-request-id": "mine"}
    with connect(url, additional_headers=headers, max_size=None, proxy=None) as socket:
        yield socket


def ask(socket, end="completed", model="socketed/mock-small", **more):
    socket.send(json.dumps({"type": "response.create", "model": model, "input": "Hé", "metadata": {"end": end}} | more))


def until(socket, *kinds):
    while True:
        event = json.loads(socket.recv(timeout=10))
        if event["type"] in kinds:
            return event


def entries_of(bill, socket, count):
    request_id = socket.response.headers["x-gateway-request-id"]

    def closed():
        entries = sorted(bill.entries(request_id), key=lambda entry: entry["open"]["attempt"])
        return entries if len(entries) == count and all("close" in entry for entry in entries) else None

    return bill.poll("the entries of the connection", closed)


def test_turns(socket, provider, bill):
    for end in ["completed", "incomplete", "completed"]:
        ask(socket, end)
        assert until(socket, f"response.{end}")["response"]["usage"] == USAGE
    [head] = provider.heads
    assert (head["authorization"], head["x-request-id"], "sec-websocket-extensions" in head) == ("Bearer upstream-key", "mine", False)
    assert [json.loads(message)["model"] for message in provider.messages] == ["mock-small"] * 3
    entries = entries_of(bill, socket, 3)
    assert [entry["open"]["attempt"] for entry in entries] == [1, 2, 3]
    for entry in entries:
        assert (entry["usage"]["source"], entry["close"]["outcome"]) == ("reported", "ok")
        assert entry["usage"]["lines"][0]["usage"] == USED
        assert entry["usage"]["total"] == bill.charge(USED)
        assert (entry["open"]["model_requested"], entry["open"]["model"]) == ("socketed/mock-small", "mock-small")


@pytest.mark.parametrize("message", ["no JSON", b"\x00\x01", "[]", '{"kind": "response.cancel"}', '{"type": "response.Create"}'])
def test_what_cannot_be_read_closes_the_connection(socket, provider, message):
    with pytest.raises(ConnectionClosed) as caught:
        socket.send(message)
        socket.recv(timeout=10)
    assert caught.value.rcvd.code == 1008
    assert provider.messages == []


def test_what_is_no_turn_passes_as_it_is(socket, provider):
    cancel = '{"type": "response.cancel"%s}'
    messages = [cancel % "", cancel % (', "pad": "%s"' % ("x" * 70_000)), (cancel % " ").encode()]
    for message in messages:
        socket.send(message)
    # In fragments, as they were sent.
    fragments = ['{"type": "resp', "onse.can", 'cel"}']
    socket.send(fragments)
    assert socket.ping().wait(5)
    ask(socket)
    until(socket, "response.completed")
    assert provider.messages[:-1] == [*messages, "".join(fragments)]


def test_large_messages_both_ways(socket, provider, bill):
    socket.send(json.dumps({"type": "response.create", "model": "socketed/mock-small", "input": "x" * 900_000}))
    until(socket, "response.completed")
    assert len(json.loads(provider.messages[0])["input"]) == 900_000
    entries_of(bill, socket, 1)


def test_a_message_past_the_bound_closes_with_its_code(socket):
    with pytest.raises(ConnectionClosed) as caught:
        socket.send("x" * (1 << 20) + "x")
        socket.recv(timeout=10)
    assert caught.value.rcvd.code == 1009


def test_a_caller_that_leaves_within_a_turn(socket, bill):
    ask(socket, "hang")
    until(socket, "response.output_text.delta")
    socket.close()
    [entry] = entries_of(bill, socket, 1)
    assert (entry["close"]["outcome"], entry["usage"]["source"]) == ("client_closed", "estimated")


def test_a_provider_that_leaves_within_a_turn(socket, bill):
    ask(socket, "close")
    with pytest.raises(ConnectionClosed):
        until(socket, "response.completed")
    [entry] = entries_of(bill, socket, 1)
    assert entry["close"]["outcome"] == "truncated"


def test_what_nobody_here_can_read_passes_where_it_is_listed_and_is_marked(gateway, provider, bill):
    url = gateway.replace("http", "ws") + "/socketed/realtime?model=gpt-realtime"
    with connect(url, additional_headers={"authorization": "Bearer callers"}, max_size=None, proxy=None) as socket:
        socket.send(b"\x00\xff" * 40_000)
        ask(socket)
        assert until(socket, "response.completed")["response"]["usage"] == USAGE
    assert provider.messages[0] == b"\x00\xff" * 40_000
    assert json.loads(provider.messages[1])["model"] == "socketed/mock-small"
    assert provider.heads[0]["authorization"] == "Bearer upstream-key"
    [entry] = entries_of(bill, socket, 1)
    assert (entry["close"]["faults"], entry["open"]["endpoint"], "usage" in entry) == (["unmetered"], "/v1/realtime", False)
    assert entry["close"]["outcome"] in ("ok", "client_closed")
    assert entry["close"]["bytes_out"] > 40_000


def test_handshakes_are_refused_in_openais_words(gateway, bill):
    url = gateway.replace("http", "ws")
    for path, headers, status, code in [
        ("/v1/responses", {"x-provider": "azure"}, 400, "websocket_not_supported"),
        ("/v1/responses", {"origin": "https://evil.example"}, 403, "cross_site_request"),
        ("/v1/chat/completions", {}, 404, "not_found"),
        ("/v1/realtime", {}, 404, "not_found"),
        ("/azure/realtime", {}, 403, "path_not_allowed"),
    ]:
        origin = headers.pop("origin", None)
        with pytest.raises(InvalidStatus) as caught:
            connect(url + path, additional_headers=headers, origin=origin, proxy=None)
        answer = caught.value.response
        assert (answer.status_code, json.loads(answer.body)["error"]["code"]) == (status, code)


def test_the_built_in_mock(gateway, bill):
    url = gateway.replace("http", "ws") + "/v1/responses"
    with connect(url, additional_headers={"x-provider": "mock"}, proxy=None) as socket:
        for _ in range(2):
            ask(socket, model="mock/mock-small?input=100&cached=10&output=7&reasoning=1")
            until(socket, "response.output_text.delta")
            assert until(socket, "response.completed")["response"]["usage"] == USAGE
        assert socket.ping().wait(5)
        ask(socket, model="mock-small?error=429")
        assert until(socket, "error")["status"] == 429
        paid, again, failed = entries_of(bill, socket, 3)
    assert [entry["usage"]["lines"][0]["usage"] for entry in (paid, again)] == [USED, USED]
    assert failed["close"]["outcome"] == "upstream_error"


def test_turns_of_a_ledger_that_is_synced_before_they_end(tmp_path):
    [mock] = free_ports(1)
    with OwnGateway(tmp_path, {"ledger": {"sync": "always"}}, mock=mock) as gateway:
        with connect(gateway.url.replace("http", "ws") + "/v1/responses", proxy=None) as socket:
            for _ in range(3):
                ask(socket, model="mock-small")
                until(socket, "response.completed")
        until_true(lambda: [entry["outcome"] for entry in gateway.entries()] == ["ok"] * 3)


def test_messages_count_against_the_budget_of_bodies(tmp_path):
    [mock] = free_ports(1)
    # A message is held as it came and unmasked.
    with OwnGateway(tmp_path, {"body": {"bytes_max": "300KiB", "budget": "600KiB"}}, mock=mock) as gateway:
        url = gateway.url.replace("http", "ws") + "/v1/responses"
        with connect(url, proxy=None) as first, connect(url, proxy=None) as second:
            text = json.dumps({"type": "response.create", "model": "mock-small", "input": "x" * 200_000})
            begun, goes_on = threading.Event(), threading.Event()

            def in_two():
                yield text[:150_000]
                begun.set()
                assert goes_on.wait(20)
                yield text[150_000:]

            halves = threading.Thread(target=first.send, args=(in_two(),))
            halves.start()
            assert begun.wait(10)
            # One fits beside what the other holds, and another does not.
            ask(second, model="mock-small", input="x" * 100_000)
            until(second, "response.completed")
            with pytest.raises(ConnectionClosed) as caught:
                ask(second, model="mock-small", input="x" * 250_000)
                second.recv(timeout=10)
            assert caught.value.rcvd.code == 1008 and "memory budget" in caught.value.rcvd.reason
            goes_on.set()
            halves.join()
            until(first, "response.completed")
            # What they held came back.
            ask(first, model="mock-small", input="x" * 290_000)
            until(first, "response.completed")
