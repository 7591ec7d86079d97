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


def check(path, answer, method="get"):
    documented = API["paths"][path][method]["responses"]
    assert str(answer.status_code) in documented, answer.text
    kind = answer.headers["content-type"].split(";")[0]
    schema = resolved(documented[str(answer.status_code)]["content"][kind]["schema"])
    jsonschema.validate(answer.json() if kind == "application/json" else answer.text, schema)


def urls(gateway, path):
    servers = API["paths"][path]["get"].get("servers", API["servers"])
    ports = {"9090": gateway.admin, "8080": gateway.url}
    return [ports[server["url"].rsplit(":", 1)[1]] + path.replace("{id}", gateway.request_id) for server in servers]


READ = [path for path, methods in API["paths"].items() if "get" in methods]


@pytest.mark.parametrize("path", READ)
def test_every_path_answers_as_documented(gateway, path):
    for url in urls(gateway, path):
        check(path, gateway.http.get(url))


PARAMETERS = [(path, parameter) for path in ("/usage", "/overview") for parameter in API["paths"][path]["get"]["parameters"]]


@pytest.mark.parametrize(("path", "parameter"), PARAMETERS, ids=lambda each: each["name"] if isinstance(each, dict) else each)
def test_every_parameter_is_understood(gateway, path, parameter):
    for example in parameter["examples"].values():
        answer = gateway.http.get(gateway.admin + path, params={parameter["name"]: example["value"]})
        assert answer.status_code == 200
        check(path, answer)


def test_errors_are_documented(gateway):
    for path, url in [("/usage", "/usage?by=colour"), ("/usage", "/usage?since=soon"), ("/overview", "/overview?by=model,key"), ("/usage/requests/{id}", "/usage/requests/none")]:
        answer = gateway.http.get(gateway.admin + url)
        assert answer.status_code >= 400
        check(path, answer)


def test_nothing_is_left_out(gateway):
    """What the server names when it is asked for something else."""
    told = gateway.http.get(f"{gateway.admin}/usage?colour=red").text
    names = {parameter["name"] for parameter in API["paths"]["/usage"]["get"]["parameters"]}
    assert set(re.findall(r"[a-z]+", told.split("none of")[1])) - {"json", "csv"} == names
    assert set(API["components"]["schemas"]["By"]["enum"]) == names - {"by", "since", "until", "limit", "format"}
    paths = set(re.findall(r"/[a-z/{}]*", gateway.http.get(f"{gateway.admin}/none").text))
    assert paths == {path for path in API["paths"] if path != "/v1/models"}
    assert gateway.http.post(f"{gateway.admin}/usage").status_code == gateway.http.get(f"{gateway.admin}/reload").status_code == 405
    # The gateway itself says no more.
    assert gateway.http.get(f"{gateway.url}/usage").status_code == gateway.http.get(f"{gateway.url}/metrics").status_code == 404


def test_with_a_token_nothing_is_told_without_it(tmp_path):
    [admin] = free_ports(1)
    settings = {"admin": f"127.0.0.1:{admin}", "admin_token": "a-token-of-some-length"}
    with OwnGateway(tmp_path, settings) as gateway:
        at, right = f"http://127.0.0.1:{admin}", {"authorization": "Bearer a-token-of-some-length"}
        for path in READ:
            told = gateway.http.get(at + path.replace("{id}", "none"))
            wrong = gateway.http.get(at + path.replace("{id}", "none"), headers={"authorization": "Bearer a-token-of-some-lengt"})
            assert told.status_code == wrong.status_code == (200 if path in ("/", "/healthz", "/readyz") else 401), path
        assert gateway.http.get(f"{at}/status", headers=right).status_code == 200
        answer = gateway.http.post(f"{at}/reload")
        assert answer.status_code == 401
        check("/reload", answer, "post")
        answer = gateway.http.post(f"{at}/reload", headers=right)
        assert answer.status_code == 200, gateway.said()
        check("/reload", answer, "post")
        good = gateway.config.read_text()
        gateway.config.write_text(good.replace('"admin"', '"addmin"'))
        answer = gateway.http.post(f"{at}/reload", headers=right)
        assert answer.status_code == 422
        check("/reload", answer, "post")
        gateway.config.write_text(good)
        # Other sites may not even try.
        foreign = gateway.http.post(f"{at}/reload", headers=right | {"origin": "https://evil.example"})
        assert foreign.status_code == 403
        page = gateway.http.get(f"{at}/")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "a-token" not in gateway.said()


def test_without_a_token_nothing_is_changed(gateway):
    answer = gateway.http.post(f"{gateway.admin}/reload")
    assert answer.status_code == 403
    check("/reload", answer, "post")
