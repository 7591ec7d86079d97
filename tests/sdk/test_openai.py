import asyncio

import httpx2
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

import bill as billing
from conftest import mock_text

MODEL = "mock-small"
HELLO = [{"role": "user", "content": "Hello"}]
# Numbers that no default yields, and what they come to by dimension.
TOKENS = {"input": 1003, "cached": 401, "output": 307, "reasoning": 101}
USED = {"input": 602, "cache_read": 401, "output": 206, "reasoning": 101}
USED_CHAT = USED | {"audio_in": 0, "audio_out": 0}
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture
def client(gateway, http):
    with OpenAI(base_url=f"{gateway}/v1", api_key="none", max_retries=0, http_client=http) as client:
        yield client


@pytest.fixture
def async_client(gateway, async_http):
    return AsyncOpenAI(base_url=f"{gateway}/v1", api_key="none", max_retries=0, http_client=async_http)


def mock(**options):
    return {"mock": options}


def text_of(chunks):
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


# Chat completions


def test_chat(client, bill):
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO, extra_body=mock(**TOKENS))
    answer = raw.parse()
    assert answer.choices[0].message.content == mock_text()
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (1003, 307, 1310)
    assert billing.of_chat(answer.usage) == USED_CHAT
    entry = bill.paid(USED_CHAT, request_id=raw.headers["x-gateway-request-id"])
    assert (entry["open"]["endpoint"], entry["open"]["stream"]) == ("/chat/completions", False)
    assert entry["usage"]["response_id"] == answer.id


def test_chat_with_the_usage_the_mock_makes_up(client, bill):
    answer = client.chat.completions.create(model=MODEL, messages=HELLO)
    assert answer.usage.completion_tokens == 8 * 3 + 4
    bill.paid(billing.of_chat(answer.usage))


@pytest.mark.parametrize("options", [{}, {"stream_options": {"include_usage": False}}], ids=["unasked", "declined"])
@pytest.mark.parametrize("split", [0, 7])
def test_chat_stream_hides_the_usage_that_was_not_asked_for(client, bill, options, split):
    body = mock(split=split, **TOKENS)
    chunks = list(client.chat.completions.create(model=MODEL, messages=HELLO, stream=True, extra_body=body, **options))
    assert all(chunk.usage is None and len(chunk.choices) == 1 for chunk in chunks)
    assert text_of(chunks) == mock_text()
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert bill.paid(USED_CHAT)["open"]["stream"]


def test_chat_stream_shows_the_usage_that_was_asked_for(client, bill):
    stream = client.chat.completions.create(
        model=MODEL, messages=HELLO, stream=True, stream_options={"include_usage": True}, extra_body=mock(**TOKENS)
    )
    *chunks, last = stream
    assert all(chunk.usage is None and len(chunk.choices) == 1 for chunk in chunks)
    assert text_of(chunks) == mock_text()
    assert last.choices == []
    assert billing.of_chat(last.usage) == USED_CHAT
    bill.paid(USED_CHAT)


def test_chat_stream_is_passed_on_as_it_comes(client, bill):
    """The first words are there long before the last."""
    body = {"model": MODEL, "messages": HELLO, "stream": True, "extra_body": mock(chunks=5, delay_ms=100, **TOKENS)}
    with client.chat.completions.with_streaming_response.create(**body) as raw:
        request_id = raw.headers["x-gateway-request-id"]
        chunks = iter(raw.parse())
        first = [next(chunks), next(chunks)]
        assert all("close" not in entry for entry in bill.entries(request_id))
        assert text_of(first + list(chunks)) == mock_text(chunks=5)
    bill.paid(USED_CHAT, request_id=request_id)


def test_a_client_that_leaves_after_the_last_event_has_not_left_early(client, bill):
    """The SDK closes the connection at `[DONE]`, which may be before the gateway has written the end of the body."""
    for _ in range(50):
        chunks = client.chat.completions.create(model=MODEL, messages=HELLO, stream=True, extra_body=mock(chunks=1, delay_ms=5, **TOKENS))
        assert text_of(chunks) == mock_text(chunks=1)
        bill.paid(USED_CHAT)


def test_chat_tools(client, bill):
    question = [{"role": "user", "content": "What is the weather?"}]
    answer = client.chat.completions.create(model=MODEL, messages=question, tools=[TOOL])
    message = answer.choices[0].message
    [call] = message.tool_calls
    assert (answer.choices[0].finish_reason, call.function.name, call.function.arguments) == ("tool_calls", "get_weather", "{}")
    bill.paid(billing.of_chat(answer.usage))

    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    answer = client.chat.completions.create(model=MODEL, messages=[*question, message, result], tools=[TOOL])
    assert (answer.choices[0].message.content, answer.choices[0].message.tool_calls) == (mock_text(), None)
    bill.paid(billing.of_chat(answer.usage))


def test_chat_tools_in_a_stream(client, bill):
    with client.chat.completions.stream(model=MODEL, messages=HELLO, tools=[TOOL], extra_body=mock(**TOKENS)) as stream:
        message = stream.get_final_completion().choices[0].message
    assert [call.function.name for call in message.tool_calls] == ["get_weather"]
    bill.paid(USED_CHAT)


def test_chat_async(async_client, bill):
    async def one(number):
        tokens = TOKENS | {"output": 307 + number}
        raw = await async_client.chat.completions.with_raw_response.create(model=MODEL, messages=HELLO, extra_body=mock(**tokens))
        return raw.headers["x-gateway-request-id"], raw.parse()

    async def streamed():
        stream = await async_client.chat.completions.create(model=MODEL, messages=HELLO, stream=True, extra_body=mock(**TOKENS))
        return [chunk async for chunk in stream]

    async def main():
        async with async_client:
            answers = await asyncio.gather(*map(one, range(16)))
            return answers, await streamed()

    answers, chunks = asyncio.run(main())
    for number, (request_id, answer) in enumerate(answers):
        assert answer.choices[0].message.content == mock_text()
        used = billing.of_chat(answer.usage)
        assert used == USED_CHAT | {"output": 206 + number}
        bill.paid(used, request_id=request_id)
    assert text_of(chunks) == mock_text()
    assert all(chunk.usage is None and len(chunk.choices) == 1 for chunk in chunks)
    bill.paid(USED_CHAT)


# Responses


def test_responses(client, bill):
    answer = client.responses.create(model=MODEL, input="Hello", extra_body=mock(**TOKENS))
    assert (answer.status, answer.output_text) == ("completed", mock_text())
    assert billing.of_responses(answer.usage) == USED
    assert bill.paid(USED)["usage"]["response_id"] == answer.id


def test_responses_stream(client, bill):
    events = list(client.responses.create(model=MODEL, input="Hello", stream=True, extra_body=mock(chunks=3, **TOKENS)))
    assert [event.type for event in events] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * 3,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == mock_text(chunks=3)
    assert events[-1].response.output_text == mock_text(chunks=3)
    assert billing.of_responses(events[-1].response.usage) == USED
    bill.paid(USED)


def test_responses_stream_events_are_numbered(client, bill):
    events = list(client.responses.create(model=MODEL, input="Hello", stream=True, extra_body=mock(chunks=3, **TOKENS)))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    bill.paid(USED)


def test_responses_stream_helper(client, bill):
    with client.responses.stream(model=MODEL, input="Hello", extra_body=mock(split=5, **TOKENS)) as stream:
        answer = stream.get_final_response()
    assert answer.output_text == mock_text()
    assert billing.of_responses(answer.usage) == USED
    bill.paid(USED)


def test_responses_tools(client, bill):
    tool = {"type": "function", "name": "get_weather", "parameters": {"type": "object", "properties": {}}, "strict": False}
    question = [{"role": "user", "content": "What is the weather?"}]
    answer = client.responses.create(model=MODEL, input=question, tools=[tool])
    [call] = answer.output
    assert (call.type, call.name, call.arguments) == ("function_call", "get_weather", "{}")
    bill.paid(billing.of_responses(answer.usage))

    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    answer = client.responses.create(model=MODEL, input=[*question, call, result], tools=[tool])
    assert answer.output_text == mock_text()
    bill.paid(billing.of_responses(answer.usage))


def test_responses_input_tokens_are_free(client, bill):
    count = client.responses.input_tokens.count(model=MODEL, input="Hello", extra_body=mock(input=77))
    assert count.input_tokens == 77
    bill.counted()


def test_responses_async(async_client, bill):
    async def main():
        async with async_client:
            stream = await async_client.responses.create(model=MODEL, input="Hello", stream=True, extra_body=mock(**TOKENS))
            return [event async for event in stream]

    last = asyncio.run(main())[-1]
    assert (last.type, last.response.output_text) == ("response.completed", mock_text())
    bill.paid(billing.of_responses(last.response.usage))


# Embeddings, completions, models


def test_embeddings_in_base64(client, bill):
    raw = client.embeddings.with_raw_response.create(model=MODEL, input=["a", "b"], extra_body=mock(input=90))
    assert isinstance(raw.http_response.json()["data"][0]["embedding"], str)
    answer = raw.parse()
    assert [item.embedding for item in answer.data] == [[0.5] * 8] * 2
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (90, 90)
    assert bill.paid({"input": 90})["open"]["endpoint"] == "/embeddings"


def test_embeddings_as_floats(client, bill):
    answer = client.embeddings.create(model=MODEL, input="a", encoding_format="float", dimensions=5)
    assert [item.embedding for item in answer.data] == [[0.5] * 5]
    bill.paid(billing.of_chat(answer.usage))


def test_completions(client, bill):
    answer = client.completions.create(model=MODEL, prompt="Hello", extra_body=mock(**TOKENS))
    assert answer.choices[0].text == mock_text()
    assert billing.of_chat(answer.usage) == USED_CHAT
    assert bill.paid(USED_CHAT)["open"]["endpoint"] == "/completions"


def test_completions_stream(client, bill):
    chunks = list(client.completions.create(model=MODEL, prompt="Hello", stream=True, extra_body=mock(**TOKENS)))
    assert all(chunk.usage is None and len(chunk.choices) == 1 for chunk in chunks)
    assert "".join(chunk.choices[0].text for chunk in chunks) == mock_text()
    bill.paid(USED_CHAT)


def test_models(client, bill):
    assert "mock/mock-small" in [model.id for model in client.models.list()]
    bill.own()


# Routing


def test_the_model_may_name_its_provider(client, bill):
    answer = client.chat.completions.create(model="mock/mock-small", messages=HELLO, extra_body=mock(**TOKENS))
    assert (answer.model, answer.choices[0].message.content) == (MODEL, mock_text())
    opened = bill.paid(USED_CHAT)["open"]
    assert (opened["model_requested"], opened["model"]) == ("mock/mock-small", MODEL)


def test_a_header_may_name_the_provider(client, bill):
    header = {"x-provider": "mock"}
    answer = client.chat.completions.create(model=MODEL, messages=HELLO, extra_headers=header, extra_body=mock(**TOKENS))
    assert answer.choices[0].message.content == mock_text()
    bill.paid(USED_CHAT)


def test_a_model_without_a_price_is_not_free(client, bill):
    """Only the header leads this model to the mock, and the entry says that its charge is not known."""
    header = {"x-provider": "mock"}
    answer = client.chat.completions.create(model="nobody-knows", messages=HELLO, extra_headers=header, extra_body=mock(**TOKENS))
    assert answer.model == "nobody-knows"
    [line] = bill.entry(bill.take(None), outcome="ok", status=200)["usage"]["lines"]
    assert (line["model"], line["usage"], line["unpriced"], line["charge"]) == ("nobody-knows", USED_CHAT, ["model"], "0")


# Errors


def test_unknown_model(client, bill):
    with pytest.raises(openai.NotFoundError, match="nobody-knows") as caught:
        client.chat.completions.create(model="nobody-knows", messages=HELLO)
    assert (caught.value.code, caught.value.type) == ("model_not_found", "invalid_request_error")
    bill.refused(404, "model_not_found")


def test_provider_that_is_off(client, bill):
    with pytest.raises(openai.BadRequestError, match="OPENAI_API_KEY") as caught:
        client.chat.completions.create(model="openai/gpt-5", messages=HELLO)
    assert caught.value.code == "provider_not_configured"
    bill.refused(400, "provider_not_configured")


@pytest.mark.parametrize("status, kind", [(429, openai.RateLimitError), (500, openai.InternalServerError)])
@pytest.mark.parametrize("stream", [False, True])
def test_errors_of_the_provider(client, bill, status, kind, stream):
    with pytest.raises(kind, match="the mock was told to fail") as caught:
        client.chat.completions.create(model=MODEL, messages=HELLO, stream=stream, extra_body=mock(error=status))
    assert (caught.value.status_code, caught.value.code) == (status, "mock_error")
    assert caught.value.response.headers.get("retry-after") == ("1" if status == 429 else None)
    bill.failed(status=status, error="mock_error")


def test_no_usage_record_is_announced_for_an_error(client, bill):
    """`metered` says that a usage record must exist: its absence would look like a loss."""
    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(model=MODEL, messages=HELLO, extra_body=mock(error=429))
    assert not bill.failed(status=429, error="mock_error")["close"]["metered"]


def test_options_in_the_name_of_the_model(client, bill):
    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(model="mock-small?error=429", messages=HELLO)
    bill.failed(status=429, error="mock_error")


def test_every_try_has_an_entry(client, bill):
    """The SDK tries again after an error: each try is a request of its own."""
    with pytest.raises(openai.InternalServerError):
        client.with_options(max_retries=1).chat.completions.create(model=MODEL, messages=HELLO, extra_body=mock(error=500))
    first, second = bill.unchecked
    bill.failed(status=500, error="mock_error", request_id=first)
    bill.failed(status=500, error="mock_error", request_id=second)


@pytest.mark.parametrize("name", ["model", "stream", "stream_options"])
def test_a_field_that_stands_there_twice(http, bill, name):
    values = {"model": '"mock-small"', "stream": "true", "stream_options": '{"include_usage":true}'}
    fields = [f'"{key}":{value}' for key, value in [*values.items(), (name, values[name])]]
    body = '{"messages":[{"role":"user","content":"Hello"}],' + ",".join(fields) + "}"
    answer = http.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "duplicate_field")
    assert f"`{name}`" in answer.json()["error"]["message"]
    bill.refused(400, "duplicate_field")


def test_broken_json(http, bill):
    answer = http.post("/v1/chat/completions", content='{"model":"mock-small","messages":[', headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")
    bill.refused(400, "invalid_json")


def test_a_body_over_the_limit(client, bill):
    huge = [{"role": "user", "content": "x" * (1 << 20)}]
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model=MODEL, messages=huge)
    assert (caught.value.status_code, caught.value.code) == (413, "body_too_large")
    bill.refused(413, "body_too_large")


def test_a_body_over_the_limit_whose_length_is_not_announced(http, bill):
    answer = http.post("/v1/chat/completions", content=(b"x" * 65536 for _ in range(17)))
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
    bill.refused(413, "body_too_large")


def test_a_body_within_the_limit(client, bill):
    large = [{"role": "user", "content": "x" * ((1 << 20) - 200)}]
    answer = client.chat.completions.create(model=MODEL, messages=large)
    assert answer.usage.prompt_tokens > (1 << 20) // 4 - 100
    bill.paid(billing.of_chat(answer.usage))


def test_a_stream_that_is_cut_does_not_end_well(client, bill):
    chunks = []
    with pytest.raises((openai.APIError, httpx2.RemoteProtocolError)):
        for chunk in client.chat.completions.create(model=MODEL, messages=HELLO, stream=True, extra_body=mock(cut_after=3)):
            chunks.append(chunk)
    assert text_of(chunks) == mock_text(chunks=3)
    bill.estimated(len(text_of(chunks)), outcome="truncated", error="upstream_broken")


def test_a_responses_stream_that_is_cut_does_not_end_well(client, bill):
    types = []
    with pytest.raises((openai.APIError, httpx2.RemoteProtocolError)):
        for event in client.responses.create(model=MODEL, input="Hello", stream=True, extra_body=mock(cut_after=3)):
            types.append(event.type)
    assert types.count("response.output_text.delta") == 3
    bill.estimated(len(mock_text(chunks=3)), outcome="truncated", error="upstream_broken")


def test_a_document_that_is_cut_does_not_end_well(client, bill):
    with pytest.raises((openai.APIError, httpx2.RemoteProtocolError)):
        client.chat.completions.create(model=MODEL, messages=HELLO, extra_body=mock(cut_after=40))
    bill.estimated(40, outcome="truncated", error="upstream_broken")


def test_an_error_within_a_stream(client, bill):
    chunks = []
    with pytest.raises(openai.APIError, match="the mock was told to fail") as caught:
        for chunk in client.chat.completions.create(model=MODEL, messages=HELLO, stream=True, extra_body=mock(error_after=2)):
            chunks.append(chunk)
    assert text_of(chunks) == mock_text(chunks=2)
    assert caught.value.code == "mock_error"
    bill.estimated(len(text_of(chunks)), outcome="upstream_error", error="mock_error")


def test_an_error_within_a_responses_stream(client, bill):
    types = []
    with pytest.raises(openai.APIError):
        for event in client.responses.create(model=MODEL, input="Hello", stream=True, extra_body=mock(error_after=2)):
            types.append(event.type)
    assert types.count("response.output_text.delta") == 2
    bill.estimated(len(mock_text(chunks=2)), outcome="upstream_error", error="mock_error")


def test_a_client_that_leaves_early(client, bill):
    """The stream would last 20 s: the entry is closed because the client left."""
    stream = client.chat.completions.create(model=MODEL, messages=HELLO, stream=True, extra_body=mock(chunks=2000, delay_ms=10))
    with stream:
        for chunk in stream:
            if text_of([chunk]):
                break
    bill.estimated(len(text_of([chunk])), outcome="client_closed", more=True)


def test_images(client, bill):
    answer = client.images.generate(model=MODEL, prompt="A fox", extra_body=mock(**TOKENS))
    assert (answer.usage.input_tokens, answer.usage.output_tokens, len(answer.data)) == (1003, 307, 1)
    entry = bill.paid({"input": 602, "cache_read": 401, "image_in": 0, "output": 101, "image_out": 206})
    assert entry["open"]["endpoint"] == "/images/generations"


def test_image_stream(client, bill):
    events = list(client.images.generate(model=MODEL, prompt="A fox", stream=True, extra_body=mock(chunks=2, **TOKENS)))
    assert [event.type for event in events] == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    bill.paid({"input": 602, "cache_read": 401, "image_in": 0, "output": 101, "image_out": 206})


def test_moderation_is_free(client, bill):
    assert not client.moderations.create(model=MODEL, input="Hello").results[0].flagged
    bill.counted()
