import os
from pathlib import Path

import httpx2
import pytest

from bill import Bill, read_rates

WORDS = "The quick brown fox jumps over the lazy dog. "


def mock_text(chunks=8, size=12):
    """What the mock says in so many pieces of so many bytes."""
    return (WORDS * (chunks * size // len(WORDS) + 1))[: chunks * size]


@pytest.fixture(scope="session")
def gateway():
    return os.environ["TOLLGATE_URL"]


@pytest.fixture
def bill(request):
    """Every answered request of a test must have its bill checked."""
    failed = request.session.testsfailed
    rates = read_rates(os.environ["TOLLGATE_PRICES"])
    bill = Bill(Path(os.environ["TOLLGATE_LEDGER"]), Path(os.environ["TOLLGATE_ACCESS_LOG"]), rates)
    yield bill
    if request.session.testsfailed == failed:
        assert bill.unchecked == [], "there are requests whose bill was not checked"


@pytest.fixture
def http(gateway, bill):
    """Notes the id of every request the gateway answers."""
    with httpx2.Client(base_url=gateway, event_hooks={"response": [bill.seen]}, trust_env=False, timeout=20) as http:
        yield http


@pytest.fixture
def async_http(bill):
    """To be closed by the SDK's client, whose event loop it belongs to."""
    return httpx2.AsyncClient(event_hooks={"response": [bill.seen_async]}, trust_env=False, timeout=20)
