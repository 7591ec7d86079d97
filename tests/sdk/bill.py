"""What the gateway must have written down of a request: an entry with its charge, or a refusal."""

import json
import time
from decimal import Decimal

import yaml

DEADLINE_S = 5

# A kind of token without a rate is charged at the rate of what contains it.
PARENTS = {
    "cache_read": "input",
    "cache_write_5m": "input",
    "cache_write_1h": "cache_write_5m",
    "audio_in": "input",
    "reasoning": "output",
    "audio_out": "output",
    "image_in": "input",
    "image_out": "output",
}
OUTPUT = {"output", "reasoning", "audio_out"}


def dimensions(**counts):
    """Counts by dimension; what was not reported is left out."""
    return {name: count for name, count in counts.items() if count is not None}


def rest(whole, *parts):
    return None if whole is None else whole - sum(part or 0 for part in parts)


def of_chat(usage):
    """The dimensions of a chat completion, completion or embedding."""
    inside = getattr(usage, "prompt_tokens_details", None)
    outside = getattr(usage, "completion_tokens_details", None)
    cached, audio_in = (inside.cached_tokens, inside.audio_tokens) if inside else (None, None)
    reasoning, audio_out = (outside.reasoning_tokens, outside.audio_tokens) if outside else (None, None)
    output = getattr(usage, "completion_tokens", None)
    return dimensions(
        input=rest(usage.prompt_tokens, cached, audio_in),
        cache_read=cached,
        audio_in=audio_in,
        output=rest(output, reasoning, audio_out),
        reasoning=reasoning,
        audio_out=audio_out,
    )


def of_responses(usage):
    cached, reasoning = usage.input_tokens_details.cached_tokens, usage.output_tokens_details.reasoning_tokens
    return dimensions(
        input=usage.input_tokens - cached, cache_read=cached, output=usage.output_tokens - reasoning, reasoning=reasoning
    )


def of_messages(usage):
    hour = usage.cache_creation.ephemeral_1h_input_tokens
    thinking = usage.output_tokens_details.thinking_tokens if usage.output_tokens_details else None
    return dimensions(
        input=usage.input_tokens,
        cache_read=usage.cache_read_input_tokens,
        cache_write_5m=usage.cache_creation_input_tokens - hour,
        cache_write_1h=hour,
        output=usage.output_tokens - (thinking or 0),
        reasoning=thinking,
    )


def without_output(usage):
    """What is billed of a stream whose opening alone arrived."""
    return {name: count for name, count in usage.items() if name not in OUTPUT}


def read_rates(path):
    """The mock's rates in US dollars per million, as decimals, without a service tier."""
    with open(path, encoding="utf-8") as file:
        prices = yaml.load(file, yaml.BaseLoader)["models"]["mock-small"]["prices"]
    [plain] = [price for price in prices if "service_tier" not in price and "batch" not in price]
    rates = {name: Decimal(rate) for name, rate in plain["rates"].items()}
    rates |= {name: Decimal(fee) * 1000 for name, fee in plain["fees"].items()}
    return rates | {name: Decimal(rate) * 1_000_000 / 3600 for name, rate in plain["hours"].items()}


def lines_of(path):
    """Whole JSON lines; one that is still being written is left for later."""
    return [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


class Bill:
    def __init__(self, ledger, access_log, rates):
        self.ledger, self.access_log, self.rates = ledger, access_log, rates
        # Requests that were answered and whose bill nobody has looked at.
        self.unchecked = []

    def seen(self, response):
        self.unchecked.append(response.headers["x-gateway-request-id"])

    async def seen_async(self, response):
        self.seen(response)

    def take(self, request_id):
        """The given request, or the only one that was made."""
        if request_id is None:
            [request_id] = self.unchecked
        self.unchecked.remove(request_id)
        return request_id

    def poll(self, what, find):
        until = time.monotonic() + DEADLINE_S
        while not (found := find()):
            assert time.monotonic() < until, f"{what} was not written within {DEADLINE_S} s"
            time.sleep(0.01)
        return found

    def entries(self, request_id):
        entries = {}
        for path in self.ledger.glob("*.jsonl"):
            for record in lines_of(path):
                records = entries.setdefault(record["id"], {})
                assert record["record"] not in records, f"written twice: {record}"
                records[record["record"]] = record
        return [entry for entry in entries.values() if entry.get("open", {}).get("request_id") == request_id]

    def entry(self, request_id, **close):
        """The records of the one attempt of a request, once it is closed."""

        def closed():
            entries = self.entries(request_id)
            return entries if entries and all("close" in entry for entry in entries) else None

        [entry] = self.poll(f"the entry of request {request_id}", closed)
        assert entry["open"]["attempt"] == 1
        assert {name: entry["close"].get(name) for name in close} == close
        assert entry["close"].get("faults", []) == [] or close.get("outcome", "ok") != "ok"
        return entry

    def charge(self, usage):
        """Pico-dollars, exact: a rate of one dollar per million tokens is a million of them per token."""
        total = Decimal(0)
        for name, count in usage.items():
            while name not in self.rates:
                name = PARENTS[name]
            total += count * self.rates[name] * 10**6
        assert total == int(total)
        return str(int(total))

    def paid(self, usage, *, source="reported", outcome="ok", status=200, error=None, model="mock-small", request_id=None):
        """An attempt that is charged for this usage, to the pico-dollar."""
        assert usage, "a paid attempt has usage"
        request_id = self.take(request_id)
        entry = self.entry(request_id, outcome=outcome, status=status, error=error, metered=True)
        assert (entry["open"]["provider"], entry["open"]["billed"]) == ("mock", True)
        [line] = entry["usage"]["lines"]
        assert (line["model"], line.get("unpriced", [])) == (model, [])
        assert line["usage"] == usage
        assert line["charge"] == entry["usage"]["total"] == self.charge(usage)
        assert entry["usage"]["source"] == source
        return entry

    def estimated(self, characters, *, outcome, error=None, reported=None, more=False, request_id=None):
        """An attempt whose end never came: its output is a token for four characters that arrived (`more` may have been
        on the way), its prompt what was reported of it or an estimate, too."""
        entry = self.entry(self.take(request_id), outcome=outcome, status=200, error=error, metered=True)
        used = entry["usage"]
        [line] = used["lines"]
        usage, least = dict(line["usage"]), -(-characters // 4)
        output = usage.pop("output")
        assert least <= output <= least + (100 if more else 0)
        assert usage == reported if reported else usage["input"] > 0
        assert line["charge"] == used["total"] == self.charge(line["usage"])
        assert used["source"] == ("partial" if reported else "estimated")
        return entry

    def unknown(self, *, outcome, error=None, request_id=None):
        """An attempt that was answered without any usage: written down as such, not charged."""
        entry = self.entry(self.take(request_id), outcome=outcome, status=200, error=error, metered=True)
        used = entry["usage"]
        assert (used["source"], used["lines"], used["total"]) == ("none", [], "0")
        return entry

    def failed(self, *, status, error, request_id=None):
        """An attempt that the provider refused: nothing was used."""
        entry = self.entry(self.take(request_id), outcome="upstream_error", status=status, error=error)
        assert "usage" not in entry
        return entry

    def counted(self, request_id=None):
        """A request that only counts tokens: written down and free."""
        entry = self.entry(self.take(request_id), outcome="ok", status=200, metered=False)
        assert not entry["open"]["billed"] and "usage" not in entry
        return entry

    def own(self, request_id=None):
        """An answer of the gateway's own: no provider was asked."""
        assert self.entries(self.take(request_id)) == []

    def refused(self, status, code, request_id=None):
        """A refusal by the gateway: no provider was asked, and the access log says why."""
        request_id = self.take(request_id)

        def line():
            return [line for line in lines_of(self.access_log) if line["request_id"] == request_id]

        [refusal] = self.poll(f"the refusal of request {request_id}", line)
        assert (refusal["outcome"], refusal["status"], refusal["error"]) == ("refused", status, code)
        assert self.entries(request_id) == []
