"""Gateway keys, as SDKs carry them: a gateway of its own that asks for them."""

import subprocess
import time

import anthropic
import boto3
import httpx2
import openai
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from google import genai
from google.genai.errors import ClientError as GoogleError

from own import OwnGateway, free_ports

ASK = [{"role": "user", "content": "Hello"}]
CONVERSE = {"messages": [{"role": "user", "content": [{"text": "Hello"}]}]}


class Guarded(OwnGateway):
    def __init__(self, folder):
        [mock] = free_ports(1)
        signed = {"kind": "bedrock", "base_url": f"http://127.0.0.1:{mock}/openai/v1", "region": "eu-west-1", "prices": "mock"}
        signed |= {"access_key_id": "a", "secret_access_key": "b"}
        keys = {"signing_secret": "0123456789abcdef0123456789abcdef"}
        super().__init__(folder, {"keys": keys, "providers": {"signed": signed}}, mock=mock)

    def prepare(self):
        self.key, self.pair = self.add("one", "--org", "acme")
        self.narrow, _ = self.add("narrow", "--model", "mock-small")

    def add(self, *options):
        made = subprocess.run([self.binary, "keys", "-c", self.config, "add", *options], check=True, capture_output=True, text=True)
        text, *pair = made.stdout.splitlines()
        return text, dict(line.split("=", 1) for line in pair)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    with Guarded(tmp_path_factory.mktemp("guarded")) as guarded:
        yield guarded
    keys = {entry.get("key_name") for entry in guarded.entries() if "key" in entry}
    assert keys == {"one", "narrow"}
    assert all(entry["org"] == "acme" for entry in guarded.entries() if "key" in entry and entry["key_name"] == "one")
    written = b"".join(file.read_bytes() for file in guarded.folder.rglob("*") if file.is_file() and file.suffix != ".yaml")
    assert guarded.key.rsplit("_", 1)[1].encode() not in written
    assert guarded.pair["AWS_SECRET_ACCESS_KEY"].encode() not in written


def test_openai(guarded):
    client = openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=guarded.key, max_retries=0)
    assert client.chat.completions.create(model="mock-small", messages=ASK).usage.total_tokens > 0
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="sk-other").chat.completions.create(model="mock-small", messages=ASK)


def test_anthropic(guarded):
    client = anthropic.Anthropic(base_url=guarded.url, api_key=guarded.key, max_retries=0)
    assert client.messages.create(model="mock-small", max_tokens=9, messages=ASK).usage.output_tokens > 0
    with pytest.raises(anthropic.AuthenticationError):
        client.with_options(api_key="sk-ant-other").messages.create(model="mock-small", max_tokens=9, messages=ASK)


def test_google(guarded):
    def client(key):
        return genai.Client(api_key=key, http_options={"base_url": guarded.url, "headers": {"x-provider": "mock"}})

    known, other = client(guarded.key), client("other")
    assert known.models.generate_content(model="mock-small", contents="Hello").usage_metadata.total_token_count > 0
    with pytest.raises(GoogleError) as refused:
        other.models.generate_content(model="mock-small", contents="Hello")
    assert (refused.value.code, refused.value.status) == (401, "UNAUTHENTICATED")


def test_a_narrowed_key(guarded):
    client = openai.OpenAI(base_url=f"{guarded.url}/v1", api_key=guarded.narrow, max_retries=0)
    assert client.chat.completions.create(model="mock-small", messages=ASK).usage.total_tokens > 0
    with pytest.raises(openai.PermissionDeniedError):
        client.chat.completions.create(model="mock-large", messages=ASK)
    assert [model.id for model in client.models.list()] == ["mock/mock-small", "signed/mock-small"]


def bedrock(guarded, region="eu-west-1", **pair):
    given = {name.lower(): value for name, value in (guarded.pair | pair).items()}
    config = Config(retries={"total_max_attempts": 1}, connect_timeout=20, read_timeout=20)
    return boto3.client("bedrock-runtime", endpoint_url=guarded.url, region_name=region, config=config, **given)


@pytest.mark.parametrize("model", ["mock-small", "mock-small?split=7", "mock-small?a=/:%2F~ü"])
def test_aws_signatures(guarded, model):
    client = bedrock(guarded)
    assert client.converse(modelId=model, **CONVERSE)["usage"]["outputTokens"] > 0
    events = list(client.converse_stream(modelId=model, **CONVERSE)["stream"])
    assert events[-1]["metadata"]["usage"]["outputTokens"] > 0


def test_signatures_that_do_not_hold(guarded):
    for change in [{"AWS_SECRET_ACCESS_KEY": "guessed"}, {"region": "us-east-1"}]:
        with pytest.raises(ClientError) as refused:
            bedrock(guarded, **change).converse(modelId="mock-small", **CONVERSE)
        assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403
        assert refused.value.response["Error"]["Code"] == "AccessDeniedException"
    # Not even the list of models is for who only knows the id of a key.
    now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    scope = f"{guarded.pair['AWS_ACCESS_KEY_ID']}/{now[:8]}/eu-west-1/bedrock/aws4_request"
    forged = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host;x-amz-date, Signature=00"
    answer = httpx2.get(f"{guarded.url}/v1/models", headers={"authorization": forged, "x-amz-date": now}, trust_env=False)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "invalid_signature")


def test_bearer_for_bedrock(guarded):
    # AWS's SDKs send bearers over HTTPS alone.
    url, headers = f"{guarded.url}/model/mock-small/converse", {"authorization": f"Bearer {guarded.key}"}
    assert httpx2.post(url, json=CONVERSE, headers=headers, trust_env=False).json()["usage"]["outputTokens"] > 0
