"""The gateway answers as docs/openapi.yaml says, and no more than that."""

import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from own import OwnGateway, free_ports

DOCS = Path(__file__).parents[2] / "docs"
API = yaml.safe_load((DOCS / "openapi.yaml").read_text())
ENTRY = json.loads((DOCS / "entry.schema.json").read_text())
BODY = {"model": "mock-small", "messages": []}


def resolved(schema):
    """The schema with what it refers to in its place."""
    if isinstance(schema, list):
        return [resolved(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    reference = schema.get("$ref", "")
    if reference == "entry.schema.json":
        # Its own references start at itself.
        return ENTRY | {"$id": "urn:entry"}
    if reference.startswith("#/components/schemas/"):
        return resolved(API["components"]["schemas"][reference.rsplit("/", 1)[1]])
    return {name: resolved(value) for name, value in schema.items()}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    mock, admin = free_ports(2)
    settings = {"admin": f"127.0.0.1:{admin}"}
    with OwnGateway(tmp_path_factory.mktemp("openapi"), settings, mock=mock) as gateway:
        gateway.admin = f"http://127.0.0.1:{admin}"
        answer = gateway.http.post("/v1/chat/completions", json=BODY, headers={"x-gateway-tags": "nightly"})
        gateway.request_id = answer.headers["x-gateway-request-id"]
        yield gateway


def check(path, answer):
    documented = API["paths"][path]["get"]["responses"]
    assert str(answer.status_code) in documented, answer.text
    kind = answer.headers["content-type"].split(";")[0]
    schema = resolved(documented[str(answer.status_code)]["content"][kind]["schema"])
    jsonschema.validate(answer.json() if kind == "application/json" else answer.text, schema)


def urls(gateway, path):
    servers = API["paths"][path]["get"].get("servers", API["servers"])
    ports = {"9090": gateway.admin, "8080": gateway.url}
    return [ports[server["url"].rsplit(":", 1)[1]] + path.replace("{id}", gateway.request_id) for server in servers]


@pytest.mark.parametrize("path", API["paths"])
def test_every_path_answers_as_documented(gateway, path):
    for url in urls(gateway, path):
        check(path, gateway.http.get(url))


@pytest.mark.parametrize("parameter", API["paths"]["/usage"]["get"]["parameters"], ids=lambda parameter: parameter["name"])
def test_every_parameter_is_understood(gateway, parameter):
    for example in parameter["examples"].values():
        answer = gateway.http.get(f"{gateway.admin}/usage", params={parameter["name"]: example["value"]})
        assert answer.status_code == 200
        check("/usage", answer)


def test_errors_are_documented(gateway):
    for path, url in [("/usage", "/usage?by=colour"), ("/usage", "/usage?since=soon"), ("/usage/requests/{id}", "/usage/requests/none")]:
        answer = gateway.http.get(gateway.admin + url)
        assert answer.status_code >= 400
        check(path, answer)


def test_nothing_is_left_out(gateway):
    """What the server names when it is asked for something else."""
    told = gateway.http.get(f"{gateway.admin}/usage?colour=red").text
    names = {parameter["name"] for parameter in API["paths"]["/usage"]["get"]["parameters"]}
    assert set(re.findall(r"[a-z]+", told.split("none of")[1])) - {"json", "csv"} == names
    assert set(API["components"]["schemas"]["By"]["enum"]) == names - {"by", "since", "until", "format"}
    paths = set(re.findall(r"/[a-z/{}]+", gateway.http.get(f"{gateway.admin}/").text))
    assert paths == {path for path in API["paths"] if path != "/v1/models"}
    # The gateway itself says no more.
    assert gateway.http.get(f"{gateway.url}/usage").status_code == gateway.http.get(f"{gateway.url}/metrics").status_code == 404
