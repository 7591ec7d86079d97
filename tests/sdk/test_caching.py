"""Prompt caching with the providers' own clients: what goes up is marked, and what comes back is billed by what was cached."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
import pytest
from anthropic import Anthropic
from botocore.config import Config
from openai import OpenAI

from own import OwnGateway, until

CHAT = {"id": "c", "object": "chat.completion", "created": 1, "model": "gpt-5", "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "a"}}],
        "usage": {"prompt_tokens": 2000, "completion_tokens": 2, "total_tokens": 2002, "prompt_tokens_details": {"cached_tokens": 1500}}}
MESSAGE = {"id": "m", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5", "content": [{"type": "text", "text": "a"}], "stop_reason": "end_turn",
           "usage": {"input_tokens": 10, "output_tokens": 2, "cache_read_input_tokens": 900, "cache_creation_input_tokens": 90,
                     "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 90}}}
CONVERSED = {"output": {"message": {"role": "assistant", "content": [{"text": "a"}]}}, "stopReason": "end_turn", "metrics": {"latencyMs": 1},
             "usage": {"inputTokens": 10, "outputTokens": 2, "totalTokens": 1002, "cacheReadInputTokens": 900, "cacheWriteInputTokens": 90}}
ANSWERS = {"/chat/completions": CHAT, "/messages": MESSAGE, "/converse": CONVERSED}
SYSTEM, QUESTION = "You are terse.", "Hello"


class Provider(BaseHTTPRequestHandler):
    """All providers, remembering what they were asked."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append((body, self.headers))
        self.server.count += 1
        [answer] = [answer for end, answer in ANSWERS.items() if self.path.endswith(end)]
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def provider():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    server.asked, server.count = [], 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def gateway(provider, tmp_path):
    url = f"http://127.0.0.1:{provider.server_address[1]}"
    cached = {"api_key": "k", "prompt_cache": True}
    providers = {
        "openai": cached | {"base_url": f"{url}/v1"},
        "anthropic": cached | {"base_url": f"{url}/v1", "prompt_cache": {"ttl": "1h"}},
        "bedrock": cached | {"base_url": url, "region": "us-east-1"},
        "fireworks": cached | {"base_url": f"{url}/inference/v1", "prompt_cache": {"org": "acme"}},
        "xai": cached | {"base_url": f"{url}/v1"},
    }
    with OwnGateway(tmp_path, {"providers": providers}) as gateway:
        yield gateway


def usage(gateway, provider):
    """Of the last request, once its line is written."""
    until(lambda: gateway.log.exists() and len(gateway.entries()) == provider.count, lambda: "there is no entry")
    return gateway.entries()[-1]["lines"][0]["usage"]


def test_anthropic(gateway, provider):
    ask = {"model": "claude-sonnet-4-5", "max_tokens": 9, "system": SYSTEM, "messages": [{"role": "user", "content": QUESTION}]}
    with Anthropic(base_url=gateway.url, api_key="none", max_retries=0) as client:
        message = client.messages.create(**ask)
        assert message.usage.cache_read_input_tokens == 900
        body, _ = provider.asked.pop()
        mark = {"type": "ephemeral", "ttl": "1h"}
        assert body["system"] == [{"type": "text", "text": SYSTEM, "cache_control": mark}]
        assert body["messages"][0]["content"] == [{"type": "text", "text": QUESTION, "cache_control": mark}]
        assert usage(gateway, provider) == {"input": 10, "cache_read": 900, "cache_write_5m": 0, "cache_write_1h": 90, "output": 2}
        # Not wanted, and already done.
        client.messages.create(**ask, extra_headers={"cache-control": "no-cache"})
        body, _ = provider.asked.pop()
        assert (body["system"], body["messages"][0]["content"]) == (SYSTEM, QUESTION)
        own = [{"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral"}}]
        client.messages.create(**ask | {"system": own})
        body, _ = provider.asked.pop()
        assert (body["system"], body["messages"][0]["content"]) == (own, QUESTION)


def test_bedrock(gateway, provider):
    client = boto3.client("bedrock-runtime", endpoint_url=gateway.url, region_name="us-east-1", aws_access_key_id="a",
                          aws_secret_access_key="s", config=Config(retries={"total_max_attempts": 1}))
    tool = {"toolSpec": {"name": "t", "inputSchema": {"json": {"type": "object"}}}}
    answer = client.converse(modelId="anthropic.claude-sonnet-4-5-20250929-v1:0", system=[{"text": SYSTEM}],
                             messages=[{"role": "user", "content": [{"text": QUESTION}]}], toolConfig={"tools": [tool]})
    assert answer["usage"]["cacheReadInputTokens"] == 900
    body, _ = provider.asked.pop()
    point = {"cachePoint": {"type": "default"}}
    assert body["system"] == [{"text": SYSTEM}, point]
    assert body["messages"][0]["content"] == [{"text": QUESTION}, point]
    assert body["toolConfig"]["tools"] == [tool, point]
    used = usage(gateway, provider)
    assert {kind: used[kind] for kind in ("input", "cache_read", "cache_write_5m", "output")} == {
        "input": 10, "cache_read": 900, "cache_write_5m": 90, "output": 2}


@pytest.mark.parametrize(
    ("model", "header"),
    [("gpt-5", None), ("xai/grok-4", "x-grok-conv-id"), ("fireworks/accounts/fireworks/models/glm-5", "x-session-affinity")],
)
def test_openai_and_those_like_it(gateway, provider, model, header):
    def key(question, **more):
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": question}]
        client.chat.completions.create(model=model, messages=messages, **more)
        body, headers = provider.asked.pop()
        assert body["messages"] == messages
        return headers[header] if header else body.get("prompt_cache_key")

    with OpenAI(base_url=f"{gateway.url}/v1", api_key="none", max_retries=0) as client:
        first = key("one")
        # It is the beginning of a conversation that counts.
        assert first and key("two") == first
        asked = key("one", extra_headers={"x-cache-key": "mine"})
        assert asked == ("acme:mine" if model.startswith("fireworks") else "mine")
        assert key("one", extra_headers={"cache-control": "no-cache"}) is None
    used = usage(gateway, provider)
    assert (used["input"], used["cache_read"]) == (500, 1500)
