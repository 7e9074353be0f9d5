"""The AsyncAPI document is one by AsyncAPI's own schema."""

from __future__ import annotations

import os
from typing import Any

import jsonschema_rs
import orjson
import pytest

from dispatcherd.events import SAMPLE, load
from dispatcherd.events.render import FORMATS, About
from tests.rig import asyncapi


@pytest.fixture(scope="module")
def validator() -> Any:
    why = asyncapi.missing()
    if why is not None:
        pytest.fail(why) if os.environ.get("CI") else pytest.skip(why)
    return jsonschema_rs.validator_for(asyncapi.schema(), offline=True)


@pytest.mark.parametrize("bare", [False, True])
def test_the_document_is_valid(validator: Any, bare: bool) -> None:
    document = orjson.loads(FORMATS["asyncapi"].render(load(SAMPLE), About(bare=bare)))
    assert [error.message for error in validator.iter_errors(document)] == []
    document["operations"]["sendEvent"]["action"] = "emit"
    assert not validator.is_valid(document)
