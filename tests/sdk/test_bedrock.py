"""AWS's own SDK, against Converse and InvokeModel."""

import json

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError

from conftest import mock_text

TOKENS = {"input": 1003, "cached": 401, "output": 307, "reasoning": 101}
# Converse tells no reasoning apart.
CONVERSED = {"input": 602, "cache_read": 401, "cache_write_5m": 0, "output": 307}
INVOKED = {"input": 602, "cache_read": 401, "cache_write_5m": 0, "cache_write_1h": 0, "output": 206, "reasoning": 101}
ASK = {"messages": [{"role": "user", "content": [{"text": "Hello"}]}]}


@pytest.fixture
def client(gateway, bill):
    config = Config(retries={"total_max_attempts": 1}, connect_timeout=20, read_timeout=20)
    keys = {"aws_access_key_id": "AKIDEXAMPLE", "aws_secret_access_key": "none"}
    client = boto3.client("bedrock-runtime", endpoint_url=gateway, region_name="us-east-1", config=config, **keys)
    client.meta.events.register("response-received.bedrock-runtime", lambda response_dict, **_: bill.seen(Seen(response_dict)))
    yield client
    client.close()


class Seen:
    def __init__(self, response):
        self.headers = response["headers"]


def model(**options):
    """Bedrock's bodies are checked by the SDK; the mock is told by the name of the model."""
    return "mock-small?" + "&".join(f"{name}={value}" for name, value in options.items())


def paid(bill, used, endpoint, stream):
    entry = bill.entry(bill.take(None), outcome="ok", status=200, metered=True)
    [line] = entry["usage"]["lines"]
    assert (line["usage"], entry["usage"]["source"]) == (used, "reported")
    assert entry["usage"]["total"] == line["charge"] == bill.charge(used)
    assert (entry["open"]["endpoint"], entry["open"]["stream"]) == (endpoint, stream)


def test_converse(client, bill):
    answer = client.converse(modelId=model(**TOKENS), **ASK)
    assert answer["output"]["message"]["content"] == [{"text": mock_text()}]
    usage = answer["usage"]
    assert (usage["inputTokens"], usage["cacheReadInputTokens"], usage["outputTokens"]) == (602, 401, 307)
    paid(bill, CONVERSED, "/converse", False)


@pytest.mark.parametrize("split", [0, 7])
def test_converse_stream(client, bill, split):
    events = list(client.converse_stream(modelId=model(split=split, **TOKENS), **ASK)["stream"])
    text = "".join(event["contentBlockDelta"]["delta"]["text"] for event in events if "contentBlockDelta" in event)
    assert text == mock_text()
    assert events[-1]["metadata"]["usage"]["outputTokens"] == 307
    paid(bill, CONVERSED, "/converse-stream", True)


def test_tools(client, bill):
    tool = {"toolSpec": {"name": "get_weather", "inputSchema": {"json": {"type": "object"}}}}
    answer = client.converse(modelId=model(**TOKENS), toolConfig={"tools": [tool]}, **ASK)
    assert answer["stopReason"] == "tool_use"
    assert answer["output"]["message"]["content"][0]["toolUse"]["name"] == "get_weather"
    paid(bill, CONVERSED, "/converse", False)


def test_invoke(client, bill):
    answer = client.invoke_model(modelId=model(**TOKENS), body=json.dumps({"messages": [], "max_tokens": 9}))
    message = json.loads(answer["body"].read())
    assert message["content"][0]["text"] == mock_text()
    paid(bill, INVOKED, "/invoke", False)


@pytest.mark.parametrize("split", [0, 5])
def test_invoke_stream(client, bill, split):
    body = json.dumps({"messages": [], "max_tokens": 9})
    stream = client.invoke_model_with_response_stream(modelId=model(split=split, **TOKENS), body=body)["body"]
    events = [json.loads(event["chunk"]["bytes"]) for event in stream]
    assert "".join(event["delta"]["text"] for event in events if event["type"] == "content_block_delta") == mock_text()
    assert events[-1]["amazon-bedrock-invocationMetrics"]["outputTokenCount"] == 307
    paid(bill, INVOKED, "/invoke-with-response-stream", True)


def test_counting_is_free(client, bill):
    answer = client.count_tokens(modelId=model(input=23), input={"converse": ASK})
    assert answer["inputTokens"] == 23
    bill.counted()


@pytest.mark.parametrize("status, code", [(400, "ValidationException"), (429, "ThrottlingException"), (503, "ServiceUnavailableException")])
def test_upstream_errors(client, bill, status, code):
    with pytest.raises(ClientError) as caught:
        client.converse(modelId=model(error=status), **ASK)
    assert caught.value.response["Error"]["Code"] == code
    bill.failed(status=status, error=code)


class Text:
    """Counts the characters of a stream's text, however it ends."""

    characters = 0

    def read(self, stream):
        for event in stream:
            self.characters += len(event.get("contentBlockDelta", {}).get("delta", {}).get("text", ""))


def test_an_exception_inside_a_stream(client, bill):
    text = Text()
    with pytest.raises(EventStreamError) as caught:
        text.read(client.converse_stream(modelId=model(error_after=2), **ASK)["stream"])
    assert caught.value.response["Error"]["Code"] == "modelStreamErrorException"
    bill.estimated(text.characters, outcome="upstream_error", error="modelStreamErrorException")


def test_a_stream_that_breaks_off(client, bill):
    text = Text()
    with pytest.raises(Exception):
        text.read(client.converse_stream(modelId=model(cut_after=2), **ASK)["stream"])
    assert text.characters > 0
    bill.estimated(text.characters, outcome="truncated", error="upstream_broken")


def test_the_gateways_own_errors_are_aws_ones(client, bill):
    with pytest.raises(ClientError) as caught:
        client.converse(modelId="x" * 5000, **ASK)
    assert caught.value.response["Error"]["Code"] == "ValidationException"
    bill.refused(400, "invalid_path")


@pytest.mark.parametrize("stream", [False, True])
def test_the_root_path_builds_the_way(http, bill, stream):
    body = {"model": "signed/" + model(**TOKENS), "stream": stream, **ASK}
    answer = http.post("/", json=body)
    assert answer.headers["content-type"] == ("application/vnd.amazon.eventstream" if stream else "application/json")
    paid(bill, CONVERSED, "/converse-stream" if stream else "/converse", stream)
