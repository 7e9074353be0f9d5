"""The demo's records are what they claim to be, by the decoder and by the demo's catalogue."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import pytest

from dispatcherd.config.model import CatalogueConfig, DecodeConfig
from dispatcherd.conformity import Rules
from dispatcherd.decode import Decoder, data_of
from dispatcherd.delivery import Refused
from dispatcherd.demo.samples import BAD_RECORDS, Sample, Shop
from dispatcherd.events import SAMPLE, Catalogue, load
from tests.unit.nouns import CLAIM


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load(SAMPLE)


@pytest.fixture(scope="module")
def rules(catalogue: Catalogue) -> Rules:
    return Rules(catalogue, CatalogueConfig(on_violation="quarantine", on_unknown="quarantine"))


def verdict(rules: Rules, sample: Sample) -> Refused | tuple[str, str]:
    """Why a record is no event by the demo's rules, or its type and version."""
    decoded = Decoder(DecodeConfig()).decode(CLAIM, 1, sample.value, sample.headers, 0)
    if isinstance(decoded, Refused):
        return decoded
    event, document = decoded
    found = rules.look(event.type, event.version, data_of(event, document))
    return found or (event.type, event.version)


def test_every_event_is_by_the_catalogue_and_every_version_of_it_comes(
    catalogue: Catalogue, rules: Rules
) -> None:
    shop = Shop()
    seen = Counter(verdict(rules, shop.event(datetime.now(UTC))) for _ in range(2_000))
    assert set(seen) == {
        (event.type, event.version)
        for found in catalogue.types.values()
        for event in found.versions.values()
    }


@pytest.mark.parametrize(("reason", "value"), BAD_RECORDS)
def test_every_bad_record_is_refused_for_its_reason(
    rules: Rules, reason: str, value: bytes | None
) -> None:
    refused = verdict(rules, Sample("shop", None, value))
    assert isinstance(refused, Refused) and refused.reason.word == reason
