"""Credentials that clouds hand out for a while: gateways of their own, and a cloud and provider of the test's."""

import base64
import datetime
import json
import os
import ssl
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import trustme
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from own import OwnGateway

CHAT = {"id": "c", "object": "chat.completion", "model": "mock-small", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}
GENERATED = {"candidates": [], "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5}, "modelVersion": "m"}
CONVERSED = {"output": {}, "stopReason": "end_turn", "usage": {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5}}
ANSWERS = {"/chat/completions": CHAT, ":generateContent": GENERATED, "/converse": CONVERSED}
ROLE = """<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult>
<AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/r/s</Arn><AssumedRoleId>R:s</AssumedRoleId></AssumedRoleUser>
<Credentials><AccessKeyId>{id}</AccessKeyId><SecretAccessKey>secret</SecretAccessKey><SessionToken>session</SessionToken>
<Expiration>{until}</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"""


def in_an_hour():
    return (datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")


class Cloud(BaseHTTPRequestHandler):
    """All clouds, and all providers."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def say(self, body, status=200):
        body = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def read(self):
        return self.rfile.read(int(self.headers.get("content-length") or 0)).decode()

    def token(self, kind, **more):
        """A new one each time."""
        self.server.handed += 1
        name = f"{kind}-{self.server.handed}"
        self.say({"access_token": name, "token_type": "Bearer", "expires_in": 3600, **more})

    def keys(self, **more):
        self.server.handed += 1
        self.say({"AccessKeyId": f"ID{self.server.handed}", "SecretAccessKey": "s", "Token": "session", "Expiration": in_an_hour(), **more})

    def do_PUT(self):
        assert self.path == "/latest/api/token"
        self.send_response(200)
        self.send_header("x-aws-ec2-metadata-token-ttl-seconds", "21600")
        self.send_header("content-length", "5")
        self.end_headers()
        self.wfile.write(b"IMDS2")

    def do_GET(self):
        path = self.path.split("?")[0]
        query = urllib.parse.parse_qs(self.path.partition("?")[2])
        if path == "/container":
            assert self.headers["authorization"] == "container-secret"
            self.keys()
        elif path == "/latest/meta-data/iam/security-credentials-extended/":
            self.say("", 404)
        elif path == "/latest/meta-data/iam/security-credentials/":
            self.say("machine-role")
        elif path == "/latest/meta-data/iam/security-credentials/machine-role":
            assert self.headers["x-aws-ec2-metadata-token"] == "IMDS2"
            self.keys(Code="Success", Type="AWS-HMAC", LastUpdated="2026-01-01T00:00:00Z")
        elif path == "/computeMetadata/v1/instance/service-accounts/default/token":
            assert self.headers["metadata-flavor"] == "Google"
            self.token("metadata")
        elif path == "/managed":
            assert self.headers["x-identity-header"] == "managed-secret"
            assert query["resource"] == ["https://cognitiveservices.azure.com"], query
            in_hour = int(datetime.datetime.now().timestamp()) + 3600
            self.token("managed" if "client_id" not in query else query["client_id"][0], expires_on=str(in_hour), resource="r")
        else:
            self.say({"error": f"nothing at {path}"}, 404)

    def do_POST(self):
        body, path = self.read(), self.path.split("?")[0]
        form = {name: values[0] for name, values in urllib.parse.parse_qs(body).items()}
        answer = next((answer for end, answer in ANSWERS.items() if path.endswith(end)), None)
        if answer is not None:
            authorization = self.headers["authorization"]
            self.server.seen.append((authorization, self.headers["x-amz-security-token"]))
            refused = any(name in (authorization or "") for name in self.server.refuses)
            self.say({"error": {"message": "expired", "code": 401}}, 401) if refused else self.say(answer)
        elif path == "/tenant/oauth2/v2.0/token":
            assert form["client_id"] == "client" and form["scope"] == "https://cognitiveservices.azure.com/.default"
            if form.get("client_secret") == "application-secret":
                self.token("application")
            else:
                assert form["client_assertion"] == "kubernetes-token", form
                self.token("workload")
        elif form.get("Action") == "AssumeRoleWithWebIdentity":
            assert form["WebIdentityToken"] == "kubernetes-token" and form["RoleArn"] == "arn:aws:iam::123456789012:role/r"
            self.say(ROLE.format(id="IDWEB", until=in_an_hour()))
        else:
            self.say({"error": f"nothing at {path}"}, 404)


@pytest.fixture
def cloud():
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), Cloud) for _ in range(2)]
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    servers[1].socket = context.wrap_socket(servers[1].socket, server_side=True)
    for server in servers:
        server.seen, server.refuses, server.handed, server.key = [], [], 0, key.public_key()
        threading.Thread(target=server.serve_forever, daemon=True).start()
    plain, secure = servers
    plain.url, plain.secure_url = (f"{scheme}://127.0.0.1:{server.server_port}" for scheme, server in (("http", plain), ("https", secure)))
    plain.pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    plain.authority = authority
    yield plain
    for server in servers:
        server.shutdown()
        server.server_close()


class Gateway(OwnGateway):
    """A gateway for which a cloud stands beside."""

    def __init__(self, folder, providers, environment):
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        environment = {**kept, "AWS_EC2_METADATA_DISABLED": "true", **environment}
        super().__init__(folder, {"providers": providers}, environment=environment)


def converse(gateway):
    return gateway.http.post("/model/amazon.nova-lite-v1%3A0/converse", json={"messages": [{"role": "user", "content": [{"text": "hi"}]}]})


def generate(gateway):
    return gateway.http.post("/vertex/v1/publishers/google/models/gemini-x:generateContent", json={"contents": []})


def chat(gateway):
    return gateway.http.post("/azure/openai/v1/chat/completions", json={"model": "mock-small", "messages": []})


def bedrock(cloud, **more):
    return {"bedrock": {"region": "eu-west-1", "base_url": cloud.url, **more}}


def vertex(cloud, **more):
    return {"vertex": {"location": "l", "project": "p", "base_url": cloud.url, **more}}


def azure(cloud, **more):
    return {"azure": {"base_url": f"{cloud.url}/openai/v1", "prices": "mock", **more}}


def account(cloud, folder):
    """A service account's file."""
    file = folder / "account.json"
    file.write_text(
        json.dumps(
            {
                "type": "service_account",
                "client_email": "robot@project.iam.gserviceaccount.com",
                "private_key_id": "1",
                "private_key": cloud.pem,
                "project_id": "project",
                "token_uri": f"{cloud.url}/nobody-asks-here",
                "universe_domain": "googleapis.com",
            }
        )
    )
    return str(file)


def kubernetes(folder):
    file = folder / "kubernetes-token"
    file.write_text("kubernetes-token")
    return str(file)


def aws_files(cloud, folder):
    """Shared files with a profile that takes a role by what Kubernetes says."""
    file = folder / "aws-config"
    file.write_text(
        f"[profile prod]\nrole_arn = arn:aws:iam::123456789012:role/r\nweb_identity_token_file = {kubernetes(folder)}\n"
        "[profile keys]\naws_access_key_id = IDFILE\naws_secret_access_key = s\n"
        "[profile tool]\ncredential_process = echo '{\"Version\":1,\"AccessKeyId\":\"IDTOOL\",\"SecretAccessKey\":\"s\"}'\n"
    )
    return {"AWS_CONFIG_FILE": str(file), "AWS_ENDPOINT_URL_STS": cloud.url}


AWS = {
    "container": (lambda cloud, _: {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{cloud.url}/container", "AWS_CONTAINER_AUTHORIZATION_TOKEN": "container-secret"}, "default", "ID1", "session"),
    "machine": (lambda cloud, _: {"AWS_EC2_METADATA_SERVICE_ENDPOINT": cloud.url, "AWS_EC2_METADATA_DISABLED": "false"}, "default", "ID1", "session"),
    "web identity": (
        lambda cloud, folder: {
            "AWS_WEB_IDENTITY_TOKEN_FILE": kubernetes(folder),
            "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/r",
            "AWS_ENDPOINT_URL_STS": cloud.url,
        },
        "default",
        "IDWEB",
        "session",
    ),
    "role of a profile": (aws_files, {"profile": "prod"}, "IDWEB", "session"),
    "keys of a profile": (aws_files, {"profile": "keys"}, "IDFILE", None),
    "process of a profile": (aws_files, {"profile": "tool"}, "IDTOOL", None),
}


@pytest.mark.parametrize("case", AWS)
def test_aws(cloud, tmp_path, case):
    environment, identity, key, token = AWS[case]
    with Gateway(tmp_path, bedrock(cloud, identity=identity), environment(cloud, tmp_path)) as gateway:
        answer = converse(gateway)
        assert answer.status_code == 200, (answer.text, gateway.said())
        ((authorization, sent),) = cloud.seen
        assert authorization.startswith(f"AWS4-HMAC-SHA256 Credential={key}/") and "/eu-west-1/bedrock/" in authorization
        assert sent == token


def assert_is_the_account(cloud, authorization):
    """An account signs its tokens itself: https://google.aip.dev/auth/4111"""
    head, claims, signature = authorization.removeprefix("Bearer ").split(".")
    decode = lambda part: base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    cloud.key.verify(decode(signature), f"{head}.{claims}".encode(), padding.PKCS1v15(), hashes.SHA256())
    claims = json.loads(decode(claims))
    assert claims["iss"] == "robot@project.iam.gserviceaccount.com"
    assert claims["scope"] == "https://www.googleapis.com/auth/cloud-platform"


def test_google_account_by_configuration(cloud, tmp_path):
    with Gateway(tmp_path, vertex(cloud, identity={"file": account(cloud, tmp_path)}), {}) as gateway:
        assert [generate(gateway).status_code for _ in range(3)] == [200] * 3, gateway.said()
        # One token for all.
        assert len(cloud.seen) == 3 and len(set(cloud.seen)) == 1
        assert_is_the_account(cloud, cloud.seen[0][0])


def test_google_account_by_environment(cloud, tmp_path):
    environment = {"GOOGLE_APPLICATION_CREDENTIALS": account(cloud, tmp_path)}
    with Gateway(tmp_path, vertex(cloud, identity="default"), environment) as gateway:
        assert generate(gateway).status_code == 200, gateway.said()
        assert_is_the_account(cloud, cloud.seen[0][0])


def test_google_metadata(cloud, tmp_path):
    with Gateway(tmp_path, vertex(cloud, identity="metadata"), {"GCE_METADATA_HOST": cloud.url.removeprefix("http://")}) as gateway:
        assert generate(gateway).status_code == 200, gateway.said()
        assert cloud.seen == [("Bearer metadata-1", None)]


def entra(cloud, folder):
    file = folder / "authority.pem"
    cloud.authority.cert_pem.write_to_path(file)
    return {"AZURE_AUTHORITY_HOST": cloud.secure_url, "SSL_CERT_FILE": str(file)}


def test_entra_application(cloud, tmp_path):
    identity = {"tenant_id": "tenant", "client_id": "client", "client_secret": "application-secret"}
    with Gateway(tmp_path, azure(cloud, identity=identity), entra(cloud, tmp_path)) as gateway:
        assert chat(gateway).status_code == 200, gateway.said()
        assert cloud.seen == [("Bearer application-1", None)]


def test_entra_workload(cloud, tmp_path):
    environment = {"AZURE_TENANT_ID": "tenant", "AZURE_CLIENT_ID": "client", "AZURE_FEDERATED_TOKEN_FILE": kubernetes(tmp_path)}
    with Gateway(tmp_path, azure(cloud, identity="workload"), {**environment, **entra(cloud, tmp_path)}) as gateway:
        assert chat(gateway).status_code == 200, gateway.said()
        assert cloud.seen == [("Bearer workload-1", None)]


@pytest.mark.parametrize(("identity", "token"), [("managed", "managed-1"), ({"client_id": "one-of-several"}, "one-of-several-1")])
def test_entra_managed(cloud, tmp_path, identity, token):
    environment = {"IDENTITY_ENDPOINT": f"{cloud.url}/managed", "IDENTITY_HEADER": "managed-secret"}
    with Gateway(tmp_path, azure(cloud, identity=identity), environment) as gateway:
        assert chat(gateway).status_code == 200, gateway.said()
        assert cloud.seen == [(f"Bearer {token}", None)]


def test_a_token_that_the_provider_does_not_take_is_replaced(cloud, tmp_path):
    cloud.refuses = ["metadata-1"]
    with Gateway(tmp_path, vertex(cloud, identity="metadata"), {"GCE_METADATA_HOST": cloud.url.removeprefix("http://")}) as gateway:
        assert generate(gateway).status_code == 401
        for _ in range(400):
            answer = generate(gateway)
            if answer.status_code == 200:
                break
            threading.Event().wait(0.05)
        assert answer.status_code == 200 and cloud.seen[-1] == ("Bearer metadata-2", None)


def test_without_a_credential_nothing_is_sent_and_the_next_candidate_is_asked(cloud, tmp_path):
    providers = bedrock(cloud, identity="default") | {"spare": {"kind": "openai", "base_url": f"{cloud.url}/v1", "api_key": "spare", "prices": "mock"}}
    with Gateway(tmp_path, providers, {"HOME": str(tmp_path)}) as gateway:
        answer = converse(gateway)
        assert answer.status_code == 503 and answer.headers["x-amzn-errortype"] == "ServiceUnavailableException"
        assert cloud.seen == []
        config = tmp_path / "tollgate.yaml"
        aliases = {"either": ["bedrock/mock-small", "spare/mock-small"]}
        config.write_text(json.dumps(json.loads(config.read_text()) | {"aliases": aliases}))
        for _ in range(400):
            answer = gateway.http.post("/v1/chat/completions", json={"model": "either", "messages": []})
            if answer.status_code != 404:
                break
            threading.Event().wait(0.05)
        assert answer.status_code == 200 and cloud.seen == [("Bearer spare", None)]
    assert "provider `bedrock`: no credential could be had" in gateway.said()
    outcomes = [(entry["upstream"], entry["outcome"], entry.get("error")) for entry in gateway.entries() if "upstream" in entry]
    assert outcomes[0] == ("bedrock", "upstream_error", "no_credential") and outcomes[-1] == ("spare", "ok", None)
