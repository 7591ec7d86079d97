"""Results of batches: an entry for each item, however often they are fetched."""

import json

import pytest
from anthropic import Anthropic
from openai import OpenAI

from own import OwnGateway, free_ports


def openai(gateway, http):
    return OpenAI(base_url=f"{gateway}/jobs/v1", api_key="none", max_retries=0, http_client=http)


def create_openai(gateway, http):
    return openai(gateway, http).batches.create(
        input_file_id="file-3", endpoint="/v1/chat/completions", completion_window="24h"
    ).output_file_id


def fetch_openai(gateway, http, file):
    return [json.loads(line) for line in openai(gateway, http).files.content(file).text.splitlines()]


def anthropic(gateway, http):
    return Anthropic(base_url=f"{gateway}/letters", api_key="none", max_retries=0, http_client=http)


def create_anthropic(gateway, http):
    return anthropic(gateway, http).messages.batches.create(requests=[]).id


def fetch_anthropic(gateway, http, batch):
    path = f"/v1/messages/batches/{batch}/results"
    answer = anthropic(gateway, http).get(path, cast_to=str, options={"headers": {"accept": "*/*"}})
    return [json.loads(line) for line in answer.splitlines()]


# Half of what the same costs on its own: input, cached input, output in pico-dollars.
USED = {
    "openai": ({"input": 1003, "output": 307}, (1003 * 5 + 307 * 25) * 100_000),
    "anthropic": (
        {"input": 602, "cache_read": 401, "cache_write_5m": 0, "output": 307},
        602 * 500_000 + 401 * 50_000 + 307 * 2_500_000,
    ),
}


def whole(entries):
    return entries if entries and all("close" in entry for entry in entries) else None


@pytest.mark.parametrize(
    ("provider", "create", "fetch"),
    [("openai", create_openai, fetch_openai), ("anthropic", create_anthropic, fetch_anthropic)],
)
def test_each_item_is_paid_for_once(gateway, http, bill, provider, create, fetch):
    used, charge = USED[provider]
    created = create(gateway, http)
    bill.take(None)
    with_items = []
    for _ in range(2):
        assert [item["custom_id"] for item in fetch(gateway, http, created)] == ["item-0", "item-1", "item-2"]
        request_id = bill.take(None)
        entries = bill.poll("the entries", lambda: whole(bill.entries(request_id)))
        [itself] = [entry for entry in entries if not entry["open"]["billed"]]
        assert "usage" not in itself and itself["close"]["outcome"] == "ok"
        with_items.append([entry for entry in entries if entry["open"]["billed"]])
    first, again = with_items
    assert again == []
    assert len(first) == 3
    for entry in first:
        [line] = entry["usage"]["lines"]
        assert (line["usage"], line["service_tier"], line["charge"]) == (used, "batch", str(charge))
        assert entry["close"].get("faults", []) == []


def test_what_is_fetched_again_after_a_restart_is_spent_once(tmp_path):
    _, charge = USED["openai"]
    [mock] = free_ports(1)
    jobs = {"kind": "openai", "base_url": f"http://127.0.0.1:{mock}/v1", "api_key": "none", "prices": "mock", "allow": ["GET /files/*", "POST /batches"]}
    # More than the batch costs, and less than it would cost twice.
    settings = {"providers": {"jobs": jobs}, "limits": [{"per": "all", "usd_per_month": charge * 5 / 10**12}]}
    for database in (True, False):
        folder = tmp_path / f"database-{database}"
        folder.mkdir()
        for items in (3, 0):
            with OwnGateway(folder, settings | {"sinks": {"sqlite": database}}, mock=mock) as gateway:
                made = gateway.http.post("/jobs/v1/batches", json={"input_file_id": "file-3"}).json()
                assert gateway.http.get(f"/jobs/v1/files/{made['output_file_id']}/content").status_code == 200
                ask = {"model": "mock-small", "messages": [], "max_tokens": 10}
                assert gateway.http.post("/v1/chat/completions", json=ask).status_code == 200, gateway.said()
                assert gateway.http.post("/v1/chat/completions", json=ask | {"max_tokens": 10_000}).status_code == 429
            # And the answer that was served.
            assert sum(entry.get("billed", False) for entry in gateway.entries()) == items + 1
            gateway.log.unlink()


def test_asking_for_a_batch_generates_nothing(http, bill):
    answer = http.post("/jobs/v1/batches", json={"input_file_id": "file-1", "endpoint": "/v1/chat/completions"})
    assert (answer.status_code, answer.json()["id"]) == (200, "batch_1")
    request_id = bill.take(None)
    [entry] = bill.poll("the entry", lambda: whole(bill.entries(request_id)))
    assert not entry["open"]["billed"] and "usage" not in entry
