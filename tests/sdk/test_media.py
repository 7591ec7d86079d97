"""Speech, transcription, pictures made of pictures, reranking: OpenAI's client, and requests as Cohere's makes them."""

import io
import wave

import pytest
from openai import OpenAI

from conftest import mock_text

# Numbers that no default yields, and what they come to by dimension.
MODEL = "mock-small?input=1003&cached=401&output=307&reasoning=101"
HEARD = {"input": 401, "audio_in": 602, "output": 307}
SILENCE = b"\xff\xf3\x44\xc4\0\0\0\x03H\0\0\0\0"


@pytest.fixture
def client(gateway, http):
    with OpenAI(base_url=f"{gateway}/v1", api_key="none", max_retries=0, http_client=http) as client:
        yield client


def sound():
    """A second of silence."""
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(8000)
        wav.writeframes(bytes(16000))
    return ("a;\"b\".wav", file.getvalue())


@pytest.mark.parametrize("model", ["mock-small", "mock/mock-small", "mock-small?split=3"])
def test_speech_is_paid_for_by_the_character(client, bill, model):
    answer = client.audio.speech.create(model=model, voice="alloy", input="Zwölf \U0001f98a…")
    assert answer.content == SILENCE * 8
    entry = bill.paid({"characters": 8}, model=model.removeprefix("mock/"))
    assert (entry["open"]["dialect"], entry["open"]["endpoint"]) == ("audio", "/audio/speech")


def test_speech_as_events_has_tokens(client, bill):
    with client.audio.speech.with_streaming_response.create(
        model=MODEL, voice="alloy", input="Hello", stream_format="sse"
    ) as answer:
        assert b"speech.audio.done" in answer.read()
    bill.paid({"input": 1003, "output": 307}, model=MODEL)


@pytest.mark.parametrize("prefix", ["", "mock/"])
def test_transcription(client, bill, prefix):
    answer = client.audio.transcriptions.create(model=prefix + MODEL, file=sound())
    assert answer.text == mock_text()
    entry = bill.paid(HEARD, model=MODEL)
    assert (entry["open"]["model"], entry["open"]["endpoint"]) == (MODEL, "/audio/transcriptions")


def test_transcription_by_the_second(client, bill):
    answer = client.audio.transcriptions.create(model="mock-small", file=sound(), response_format="verbose_json")
    assert answer.duration == 8.47
    bill.paid({"seconds": 9})


def test_transcription_whose_usage_is_its_duration(client, bill):
    client.audio.transcriptions.create(model="mock-small?usage=0", file=sound(), response_format="verbose_json")
    bill.paid({"seconds": 9}, model="mock-small?usage=0")


def test_subtitles_state_nothing(client, bill):
    answer = client.audio.transcriptions.create(model="mock-small", file=sound(), response_format="srt")
    assert answer == mock_text() + "\n"
    bill.unknown(outcome="ok")


def test_transcription_as_events(client, bill):
    events = list(client.audio.transcriptions.create(model=MODEL, file=sound(), stream=True))
    assert [event.type for event in events] == ["transcript.text.delta"] * 8 + ["transcript.text.done"]
    assert bill.paid(HEARD, model=MODEL)["open"]["stream"]


def test_translation(client, bill):
    assert client.audio.translations.create(model=MODEL, file=sound()).text == mock_text()
    bill.paid(HEARD, model=MODEL)


PICTURE = {"input": 602, "cache_read": 401, "image_in": 0, "output": 101, "image_out": 206}


def test_an_edited_picture(client, bill):
    answer = client.images.edit(model=MODEL, image=[("a.png", b"\x89PNG"), ("b.png", b"\x89PNG")], prompt="A fox")
    assert len(answer.data) == 1
    assert bill.paid(PICTURE, model=MODEL)["open"]["endpoint"] == "/images/edits"


def test_an_edited_picture_as_events(client, bill):
    events = list(client.images.edit(model=MODEL, image=("a.png", b"\x89PNG"), prompt="A fox", stream=True))
    assert events[-1].type == "image_edit.completed"
    bill.paid(PICTURE, model=MODEL)


def test_pictures_without_tokens_are_counted(client, bill):
    client.images.generate(model="mock-small", prompt="A fox", n=3, extra_body={"mock": {"usage": 0}})
    bill.paid({"picture": 3})


def test_rerank_by_the_search(http, bill):
    body = {"model": "mock-small", "query": "fox", "documents": ["dog"] * 101}
    assert len(http.post("/v2/rerank", json=body).json()["results"]) == 101
    bill.paid({"search_unit": 2})


def test_rerank_by_the_token(http, bill):
    body = {"model": MODEL, "query": "fox", "documents": ["dog", "cat"]}
    assert http.post("/v1/rerank", json=body).json()["results"][0]["index"] == 1
    bill.paid({"input": 1003})


TWICE = b'--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nmock-small\r\n' * 2 + b"--x--\r\n"
UNQUOTED = b"--x\r\nContent-Disposition: form-data; name=model\r\n\r\nmock-small\r\n--x--\r\n"


@pytest.mark.parametrize(("form", "code"), [(TWICE, "duplicate_field"), (UNQUOTED, "invalid_form")], ids=["twice", "unquoted"])
def test_a_form_that_could_be_read_two_ways_is_refused(http, bill, form, code):
    answer = http.post("/v1/audio/transcriptions", content=form, headers={"content-type": "multipart/form-data; boundary=x"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    bill.refused(400, code)
