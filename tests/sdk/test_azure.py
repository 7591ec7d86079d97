"""OpenAI's SDK in its Azure form: deployments stand in paths."""

import pytest
from openai import AzureOpenAI, OpenAI, RateLimitError

import bill as billing
from conftest import mock_text

TOKENS = {"input": 1003, "cached": 401, "output": 307, "reasoning": 101}
USED = {"input": 602, "cache_read": 401, "audio_in": 0, "output": 206, "reasoning": 101, "audio_out": 0}
ASK = {"model": "mock-small", "messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture
def client(gateway, http):
    with AzureOpenAI(azure_endpoint=gateway, api_version="2024-10-21", api_key="none", max_retries=0, http_client=http) as client:
        yield client


def paid(bill):
    entry = bill.entry(bill.take(None), outcome="ok", status=200, metered=True)
    assert (entry["open"]["upstream"], entry["usage"]["lines"][0]["usage"]) == ("azure", USED)
    assert entry["usage"]["total"] == bill.charge(USED)
    return entry


def test_chat(client, bill):
    completion = client.chat.completions.create(**ASK, extra_body={"mock": TOKENS})
    assert completion.choices[0].message.content == mock_text()
    assert billing.of_chat(completion.usage) == USED
    paid(bill)


def test_stream(client, bill):
    chunks = list(client.chat.completions.create(**ASK, stream=True, extra_body={"mock": TOKENS}))
    # Nobody asked for usage: the gateway did, and hides the chunk that this adds.
    assert all(chunk.choices and chunk.usage is None for chunk in chunks)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == mock_text()
    paid(bill)


def test_the_version_less_api(gateway, http, bill):
    with OpenAI(base_url=f"{gateway}/azure/openai/v1", api_key="none", max_retries=0, http_client=http) as client:
        completion = client.chat.completions.create(**ASK, extra_body={"mock": TOKENS})
    assert completion.choices[0].message.content == mock_text()
    paid(bill)


def test_errors(client, bill):
    with pytest.raises(RateLimitError):
        client.chat.completions.create(**ASK, extra_body={"mock": {"error": 429}})
    bill.failed(status=429, error="mock_error")
