#!/usr/bin/env python3
"""What genai-prices charges for every model it knows and a grid of usages: a line of JSON each.

    pip install genai-prices==0.2.3
    python3 tests/prices/grid.py > grid.jsonl
    TOLLGATE_PRICE_GRID=grid.jsonl cargo test --test prices
"""

import json
import sys
from datetime import UTC, datetime
from decimal import Decimal, getcontext
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "conf" / "prices"))

from facts import DIFFERENT  # noqa: E402
from from_genai_prices import PROVIDERS, patterns  # noqa: E402
from genai_prices import Usage  # noqa: E402
from genai_prices.data import providers  # noqa: E402

getcontext().prec = 60
# Day and night, before and after prices changed.
TIMES = [datetime(2026, 11, 25, 12, tzinfo=UTC), datetime(2026, 11, 25, 20, tzinfo=UTC), datetime(2026, 2, 1, 3, tzinfo=UTC)]
# Around what thresholds there are.
TOKENS = [(7, 0), (1003, 401), (128_001, 1000), (199_999, 0), (200_000, 77), (200_001, 100_000), (272_001, 13)]
OUTPUT = [0, 311]
# Our dimension, the package's rate and its name for the count, and what else counts it there: every part of a whole is
# part of each whole it belongs to, whereas here each token is counted once.
INPUTS = [
    ("audio_in", "input_audio_mtok", "input_audio_tokens", []),
    ("image_in", "input_image_mtok", "input_image_tokens", []),
    ("video_in", "input_video_mtok", "input_video_tokens", []),
    ("cache_write_5m", "cache_write_mtok", "cache_write_tokens", []),
    ("cache_write_1h", "cache_write_1h_mtok", "cache_write_1h_tokens", ["cache_write_tokens"]),
    ("cache_read_audio", "cache_audio_read_mtok", "cache_audio_read_tokens", ["cache_read_tokens", "input_audio_tokens"]),
]
OUTPUTS = [
    ("reasoning", "output_reasoning_mtok", "output_reasoning_tokens", []),
    ("audio_out", "output_audio_mtok", "output_audio_tokens", []),
    ("image_out", "output_image_mtok", "output_image_tokens", []),
    ("citation", "output_citation_mtok", "output_citation_tokens", []),
]
FEES = [("web_search", "web_searches_kcount", "web_searches"), ("tool_call", "storage_searches_kcount", "storage_searches")]
# What the package wants to be told is none, for it does not conclude so from the whole.
NONE = {"audio_in": {"cache_audio_read_tokens": 0}, "image_in": {"cache_image_read_tokens": 0}}
# Conditions of the package as this catalog knows them: the tier that served, or the region.
TIERS, REGIONS = {"service_tier", "processing", "speed"}, {"route"}


def parts(prices, kinds, whole, ours, theirs):
    """A third of a whole as each of the kinds that have a rate of their own."""
    for dimension, rate, name, within in kinds:
        part = ours[whole] // 3
        if prices.get(rate) is not None and part:
            counts = {name: part} | {other: theirs.get(other, 0) + part for other in within}
            yield ours | {whole: ours[whole] - part, dimension: part}, theirs | counts | NONE.get(dimension, {})


def cases(prices):
    """Usages that a model with these prices can have: ours, and the package's."""
    if prices.get("input_mchars") is not None:
        yield {"characters": 1234}, {"input_characters": 1234}
    if prices.get("input_audio_hours") is not None or prices.get("audio_hours") is not None:
        for seconds in (7, 10, 3601):
            yield {"seconds": seconds}, {"input_audio_seconds": seconds, "audio_seconds": seconds}
    if prices.get("input_mtok") is None:
        return
    # What has no rate is unpriced here, and costs nothing there.
    for (input_, cached), output in product(TOKENS, OUTPUT if prices.get("output_mtok") is not None else [0]):
        ours = {"input": input_ - cached, "cache_read": cached, "output": output}
        theirs = {"input_tokens": input_, "cache_read_tokens": cached, "output_tokens": output}
        yield ours, theirs
        yield from parts(prices, INPUTS, "input", ours, theirs)
        yield from parts(prices, OUTPUTS, "output", ours, theirs)
        for dimension, fee, name in FEES:
            if prices.get(fee) is not None:
                yield ours | {dimension: 3}, theirs | {name: 3}


def contexts(model):
    """Ways to be served that have a price of their own: tier and region here, and the package's condition."""
    yield "", "", None
    for when in {tuple(sorted(variant.when.items())): variant.when for variant in model.price_variants or []}.values():
        match list(when.items()):
            case [(key, value)] if key in TIERS:
                yield value, "", when
            case [(key, value)] if key in REGIONS:
                yield "", value, when


def name_of(provider, model):
    """A name that leads to this model; its id does not always."""
    names = [model.id, *(pattern.strip("*") for pattern in patterns(model)[0])]
    return next((name for name in names if provider.find_model(name) is model), None)


def main():
    known = {theirs: ours for ours, theirs in PROVIDERS.items()}
    for provider in providers:
        for model in provider.models if provider.id in known else []:
            name = name_of(provider, model)
            if name in DIFFERENT:
                continue
            for time, (tier, region, context) in product(TIMES if name else [], contexts(model)):
                prices = vars(model.get_prices(time, context))
                for ours, theirs in cases(prices):
                    price = model.calc_price(Usage(**theirs), provider, genai_request_timestamp=time, price_context=context)
                    case = {"provider": known[provider.id], "model": name, "tier": tier, "region": region, "at": int(time.timestamp())}
                    print(json.dumps(case | {"usage": ours, "usd": format(Decimal(price.total_price), "f")}))


main()
