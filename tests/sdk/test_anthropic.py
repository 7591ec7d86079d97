import asyncio

import anthropic
import httpx2
import pytest
from anthropic import Anthropic, AsyncAnthropic

import bill as billing
from conftest import mock_text

MODEL = "mock-small"
ASK = {"model": MODEL, "max_tokens": 1000, "messages": [{"role": "user", "content": "Hello"}]}
# Numbers that no default yields, and what they come to by dimension.
TOKENS = {"input": 1003, "cached": 401, "output": 307, "reasoning": 101}
USED = {"input": 602, "cache_read": 401, "cache_write_5m": 0, "cache_write_1h": 0, "output": 206, "reasoning": 101}
TOOL = {"name": "get_weather", "input_schema": {"type": "object", "properties": {}}}


@pytest.fixture
def client(gateway, http):
    with Anthropic(base_url=gateway, api_key="none", max_retries=0, http_client=http) as client:
        yield client


@pytest.fixture
def async_client(gateway, async_http):
    return AsyncAnthropic(base_url=gateway, api_key="none", max_retries=0, http_client=async_http)


def mock(**options):
    return {"mock": options}


def test_messages(client, bill):
    raw = client.messages.with_raw_response.create(**ASK, extra_body=mock(**TOKENS))
    message = raw.parse()
    [block] = message.content
    assert (block.text, message.stop_reason, message.model) == (mock_text(), "end_turn", MODEL)
    assert (message.usage.input_tokens, message.usage.output_tokens) == (602, 307)
    assert billing.of_messages(message.usage) == USED
    entry = bill.paid(USED, request_id=raw.headers["x-gateway-request-id"])
    assert (entry["open"]["endpoint"], entry["open"]["dialect"]) == ("/messages", "messages")
    assert entry["usage"]["response_id"] == message.id


@pytest.mark.parametrize("split", [0, 7])
def test_stream(client, bill, split):
    with client.messages.stream(**ASK, extra_body=mock(split=split, **TOKENS)) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert text == message.content[0].text == mock_text()
    assert message.stop_reason == "end_turn"
    assert billing.of_messages(message.usage) == USED
    assert bill.paid(USED)["open"]["stream"]


def test_stream_events(client, bill):
    events = list(client.messages.create(**ASK, stream=True, extra_body=mock(chunks=3, **TOKENS)))
    assert [event.type for event in events] == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * 3,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    # The opening's output is a placeholder; the last numbers count.
    assert (events[0].message.usage.output_tokens, events[-2].usage.output_tokens) == (1, 307)
    bill.paid(USED)


def test_tools(client, bill):
    message = client.messages.create(**ASK, tools=[TOOL])
    [call] = message.content
    assert (message.stop_reason, call.type, call.name, call.input) == ("tool_use", "tool_use", "get_weather", {})
    bill.paid(billing.of_messages(message.usage))

    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}]}
    turns = [*ASK["messages"], {"role": "assistant", "content": message.content}, result]
    message = client.messages.create(**ASK | {"messages": turns}, tools=[TOOL])
    assert (message.stop_reason, message.content[0].text) == ("end_turn", mock_text())
    bill.paid(billing.of_messages(message.usage))


def test_tools_in_a_stream(client, bill):
    with client.messages.stream(**ASK, tools=[TOOL]) as stream:
        message = stream.get_final_message()
    assert [(block.type, block.name) for block in message.content] == [("tool_use", "get_weather")]
    bill.paid(billing.of_messages(message.usage))


def test_counting_is_free(client, bill):
    count = client.messages.count_tokens(model=MODEL, messages=ASK["messages"], extra_body=mock(input=77))
    assert count.input_tokens == 77
    bill.counted()


def test_models(client, bill):
    assert "mock/mock-small" in [model.id for model in client.models.list()]
    bill.own()


def test_the_model_may_name_its_provider(client, bill):
    message = client.messages.create(**ASK | {"model": "mock/mock-small"}, extra_body=mock(**TOKENS))
    assert (message.model, message.content[0].text) == (MODEL, mock_text())
    bill.paid(USED)


def test_async(async_client, bill):
    async def one(number):
        raw = await async_client.messages.with_raw_response.create(**ASK, extra_body=mock(**TOKENS | {"output": 307 + number}))
        return raw.headers["x-gateway-request-id"], await raw.parse()

    async def main():
        async with async_client:
            answers = await asyncio.gather(*map(one, range(16)))
            async with async_client.messages.stream(**ASK, extra_body=mock(**TOKENS)) as stream:
                return answers, await stream.get_final_message()

    answers, streamed = asyncio.run(main())
    for number, (request_id, message) in enumerate(answers):
        used = billing.of_messages(message.usage)
        assert (message.content[0].text, used) == (mock_text(), USED | {"output": 206 + number})
        bill.paid(used, request_id=request_id)
    assert (streamed.content[0].text, billing.of_messages(streamed.usage)) == (mock_text(), USED)
    bill.paid(USED)


# Errors


@pytest.mark.parametrize(
    "status, kind, type",
    [(429, anthropic.RateLimitError, "rate_limit_error"), (500, anthropic.InternalServerError, "api_error")],
)
def test_errors_of_the_provider(client, bill, status, kind, type):
    with pytest.raises(kind) as caught:
        client.messages.create(**ASK, extra_body=mock(error=status))
    assert (caught.value.status_code, caught.value.body["error"]["type"]) == (status, type)
    bill.failed(status=status, error=type)


def test_errors_of_the_provider_before_a_stream(client, bill):
    with pytest.raises(anthropic.RateLimitError):
        with client.messages.stream(**ASK, extra_body=mock(error=429)) as stream:
            stream.until_done()
    bill.failed(status=429, error="rate_limit_error")


def test_unknown_model(client, bill):
    with pytest.raises(anthropic.NotFoundError, match="nobody-knows") as caught:
        client.messages.create(**ASK | {"model": "nobody-knows"})
    body = caught.value.body
    assert (body["type"], body["error"]["type"]) == ("error", "not_found_error")
    assert body["request_id"] == bill.unchecked[0]
    bill.refused(404, "model_not_found")


def test_a_body_over_the_limit(client, bill):
    huge = [{"role": "user", "content": "x" * (1 << 20)}]
    with pytest.raises(anthropic.APIStatusError) as caught:
        client.messages.create(**ASK | {"messages": huge})
    assert (caught.value.status_code, caught.value.body["error"]["type"]) == (413, "request_too_large")
    bill.refused(413, "body_too_large")


def opening_of(stream, pieces):
    """Reads so many pieces of text; the usage the stream opened with, and how long the text is."""
    characters = 0
    for event in stream:
        if event.type == "message_start":
            usage = billing.without_output(billing.of_messages(event.message.usage))
        if event.type == "content_block_delta":
            pieces -= 1
            characters += len(event.delta.text)
        if pieces == 0:
            return usage, characters
    raise AssertionError("the stream ended before")


def test_an_error_within_a_stream(client, bill):
    with client.messages.create(**ASK, stream=True, extra_body=mock(error_after=2, **TOKENS)) as stream:
        usage, characters = opening_of(stream, 2)
        with pytest.raises(anthropic.APIStatusError, match="the mock was told to fail") as caught:
            next(stream)
    assert caught.value.body["error"]["type"] == "overloaded_error"
    # What the opening told of the input stands; its output count is a placeholder.
    bill.estimated(characters, reported=usage, outcome="upstream_error", error="overloaded_error")


def test_an_error_within_a_stream_is_raised_by_the_helper(client, bill):
    with pytest.raises(anthropic.APIStatusError, match="overloaded_error"):
        with client.messages.stream(**ASK, extra_body=mock(error_after=2, **TOKENS)) as stream:
            stream.get_final_message()
    characters = len(stream.current_message_snapshot.content[0].text)
    bill.estimated(characters, reported=billing.without_output(USED), outcome="upstream_error", error="overloaded_error")


def test_a_stream_that_is_cut_does_not_end_well(client, bill):
    with client.messages.create(**ASK, stream=True, extra_body=mock(cut_after=3, **TOKENS)) as stream:
        usage, characters = opening_of(stream, 3)
        with pytest.raises((anthropic.APIError, httpx2.RemoteProtocolError)):
            next(stream)
    bill.estimated(characters, reported=usage, outcome="truncated", error="upstream_broken")


def test_a_client_that_leaves_early(client, bill):
    """The stream would last 20 s: the entry is closed because the client left."""
    with client.messages.stream(**ASK, extra_body=mock(chunks=2000, delay_ms=10, **TOKENS)) as stream:
        for event in stream:
            if event.type == "text":
                break
        usage = billing.without_output(billing.of_messages(stream.current_message_snapshot.usage))
        characters = len(stream.current_message_snapshot.content[0].text)
    bill.estimated(characters, reported=usage, outcome="client_closed", more=True)
