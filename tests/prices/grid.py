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

from from_genai_prices import PROVIDERS, patterns  # noqa: E402
from genai_prices import Usage  # noqa: E402
from genai_prices.data import providers  # noqa: E402

getcontext().prec = 60
# Day and night, before and after prices changed.
TIMES = [datetime(2026, 11, 25, 12, tzinfo=UTC), datetime(2026, 11, 25, 20, tzinfo=UTC), datetime(2026, 2, 1, 3, tzinfo=UTC)]
# Around what thresholds there are.
TOKENS = [(7, 0), (1003, 401), (128_001, 1000), (199_999, 0), (200_000, 77), (200_001, 100_000), (272_001, 13)]
OUTPUT = [0, 311]
# Our dimension and the package's name for kinds of input that are part of the whole.
PARTS = {"audio_in": "input_audio_tokens", "cache_write_5m": "cache_write_tokens"}


def cases(prices):
    """Usages that a model with these prices can have: ours, and the package's."""
    if prices.get("input_mchars") is not None:
        yield {"characters": 1234}, {"input_characters": 1234}
    if prices.get("input_audio_hours") is not None:
        for seconds in (7, 10, 3601):
            yield {"seconds": seconds}, {"input_audio_seconds": seconds, "audio_seconds": seconds}
    if prices.get("input_mtok") is None:
        return
    # What has no rate is unpriced here, and costs nothing there.
    for (input_, cached), output in product(TOKENS, OUTPUT if prices.get("output_mtok") is not None else [0]):
        ours = {"input": input_ - cached, "cache_read": cached, "output": output}
        theirs = {"input_tokens": input_, "cache_read_tokens": cached, "output_tokens": output}
        yield ours, theirs
        if prices.get("web_searches_kcount") is not None:
            yield ours | {"web_search": 3}, theirs | {"web_searches": 3}
        for dimension, name in PARTS.items():
            if prices.get({"audio_in": "input_audio_mtok", "cache_write_5m": "cache_write_mtok"}[dimension]) is not None:
                part = (input_ - cached) // 3
                yield ours | {"input": ours["input"] - part, dimension: part}, theirs | {name: part} | ({"cache_audio_read_tokens": 0} if dimension == "audio_in" else {})


def name_of(provider, model):
    """A name that leads to this model; its id does not always."""
    names = [model.id, *(pattern.strip("*") for pattern in patterns(model)[0])]
    return next((name for name in names if provider.find_model(name) is model), None)


def main():
    known = {theirs: ours for ours, theirs in PROVIDERS.items()}
    for provider in providers:
        for model in provider.models if provider.id in known else []:
            name = name_of(provider, model)
            for time in TIMES if name else []:
                prices = vars(model.get_prices(time))
                for ours, theirs in cases(prices):
                    total = model.calc_price(Usage(**theirs), provider, genai_request_timestamp=time).total_price
                    case = {"provider": known[provider.id], "model": name, "at": int(time.timestamp()), "usage": ours}
                    print(json.dumps(case | {"usd": format(Decimal(total), "f")}))


main()
