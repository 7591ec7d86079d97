"""Google's own SDK, against generateContent."""

import pytest
from google import genai
from google.genai import errors, types

from conftest import mock_text

MODEL = "mock-small"
TOKENS = {"input": 1003, "cached": 401, "output": 307, "reasoning": 101}
USED = {"input": 602, "cache_read": 401, "output": 206, "reasoning": 101}


@pytest.fixture
def client(gateway, bill):
    args = {"event_hooks": {"response": [bill.seen]}, "trust_env": False}
    options = types.HttpOptions(base_url=gateway, client_args=args, timeout=20_000)
    with genai.Client(api_key="none", http_options=options) as client:
        yield client


def mock(**options):
    return {"http_options": types.HttpOptions(extra_body={"mock": options})}


def dimensions(usage):
    """As documented: thoughts come on top of candidates, cached tokens are inside the prompt."""
    return {
        "input": usage.prompt_token_count - usage.cached_content_token_count,
        "cache_read": usage.cached_content_token_count,
        "output": usage.candidates_token_count,
        "reasoning": usage.thoughts_token_count,
    }


def test_generate(client, bill):
    answer = client.models.generate_content(model=MODEL, contents="Hello", config=mock(**TOKENS))
    assert (answer.text, answer.model_version) == (mock_text(), MODEL)
    assert dimensions(answer.usage_metadata) == USED
    entry = bill.paid(USED)
    assert (entry["open"]["endpoint"], entry["open"]["dialect"], entry["open"]["stream"]) == (":generateContent", "generate", False)
    assert entry["usage"]["response_id"] == answer.response_id


@pytest.mark.parametrize("split", [0, 7])
def test_stream(client, bill, split):
    chunks = list(client.models.generate_content_stream(model=MODEL, contents="Hello", config=mock(split=split, **TOKENS)))
    assert "".join(chunk.text or "" for chunk in chunks) == mock_text()
    assert dimensions(chunks[-1].usage_metadata) == USED
    entry = bill.paid(USED)
    assert (entry["open"]["endpoint"], entry["open"]["stream"]) == (":streamGenerateContent", True)


def test_stream_as_an_array(http, bill):
    body = {"contents": [{"parts": [{"text": "Hello"}]}], "mock": {"split": 5, **TOKENS}}
    answer = http.post(f"/v1beta/models/{MODEL}:streamGenerateContent?key=secret", json=body)
    assert answer.headers["content-type"].startswith("application/json")
    text = "".join(part.get("text", "") for chunk in answer.json() for part in chunk["candidates"][0]["content"]["parts"])
    assert text == mock_text()
    bill.paid(USED)


@pytest.mark.parametrize("stream", [False, True])
def test_the_root_path_builds_the_way(http, bill, stream):
    body = {"stream": stream, "model": f"mock/{MODEL}", "contents": [{"parts": [{"text": "Hello"}]}], "mock": TOKENS}
    answer = http.post("/", json=body)
    assert answer.headers["content-type"].startswith("text/event-stream" if stream else "application/json")
    assert bill.paid(USED)["open"]["stream"] is stream


def test_tools(client, bill):
    tool = types.Tool(function_declarations=[types.FunctionDeclaration(name="get_weather")])
    config = types.GenerateContentConfig(tools=[tool], **mock(**TOKENS))
    answer = client.models.generate_content(model=MODEL, contents="Weather?", config=config)
    assert [call.name for call in answer.function_calls] == ["get_weather"]
    bill.paid(USED)


def test_embeddings(client, bill):
    answer = client.models.embed_content(model=MODEL, contents="Hello", config=mock(input=17))
    assert answer.embeddings[0].values == [0.5, 0.25]
    assert bill.paid({"input": 17})["open"]["endpoint"] == ":batchEmbedContents"


def test_counting_is_free(client, bill):
    answer = client.models.count_tokens(model=MODEL, contents="Hello", config=mock(input=23))
    assert answer.total_tokens == 23
    bill.counted()


@pytest.mark.parametrize("status, kind", [(400, errors.ClientError), (429, errors.ClientError), (503, errors.ServerError)])
def test_upstream_errors(client, bill, status, kind):
    with pytest.raises(kind) as caught:
        client.models.generate_content(model=MODEL, contents="Hello", config=mock(error=status))
    assert caught.value.code == status
    bill.failed(status=status, error=str(status))


def test_an_error_inside_a_stream(client, bill):
    with pytest.raises(errors.APIError) as caught:
        list(client.models.generate_content_stream(model=MODEL, contents="Hello", config=mock(error_after=2, **TOKENS)))
    assert caught.value.code == 503
    # The numbers so far are all there will be; nothing was finished.
    entry = bill.entry(bill.take(None), outcome="upstream_error", status=200, error="503")
    assert entry["usage"]["source"] == "partial"


def test_the_gateways_own_errors_are_googles(client, bill):
    with pytest.raises(errors.ClientError) as caught:
        client.models.generate_content(model="x" * 5000, contents="Hello")
    assert (caught.value.code, caught.value.status) == (400, "INVALID_ARGUMENT")
    bill.refused(400, "invalid_path")
