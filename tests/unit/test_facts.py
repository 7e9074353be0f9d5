"""The document of published facts: what `dispatcherd.receiver.published` reads."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from click.testing import CliRunner

from dispatcherd.admin.facts import document, unpublished
from dispatcherd.cli.main import cli
from dispatcherd.config.load import parse_config
from dispatcherd.errors import ConfigError
from dispatcherd.keys import parse_key
from dispatcherd.receiver.published import parse_facts, read_facts
from dispatcherd.receiver.signing import new_key_pair, new_secret

PRIVATE, PUBLIC = new_key_pair()
NEXT_PRIVATE, NEXT = new_key_pair()
ROTATION = {
    "egress": ["192.0.2.0/24"],
    "keys": [
        {"public_key": PUBLIC, "not_after": "2027-02-01T00:00:00Z"},
        {"public_key": NEXT, "not_before": "2027-01-01T00:00:00+01:00"},
    ],
}
JANUARY, MARCH, BEFORE = 1_799_193_600, 1_804_291_200, 1_798_700_000


def endpoint(name: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "url": "https://a.example.com/", "secret": {"env": "X"}, **more}


def test_a_receiver_trusts_each_key_in_its_time_and_both_while_they_overlap() -> None:
    made = document(parse_config({"facts": ROTATION}))
    assert read_facts(made, BEFORE).public_keys == (PUBLIC,)
    assert read_facts(made, JANUARY).public_keys == (PUBLIC, NEXT)
    assert read_facts(made, MARCH).public_keys == (NEXT,)
    assert read_facts(made, MARCH).egress == ("192.0.2.0/24",)


def test_it_says_what_holds_for_every_endpoint_and_names_none() -> None:
    made = document(parse_config({"facts": ROTATION, "endpoints": [endpoint("hunter2")]}))
    assert made["retry"]["max_attempts"] == 10 == len(made["retry"]["schedule_seconds"])
    assert made["timeout_seconds"] == 15
    assert made["signature_versions"] == ["v1", "v1a"]
    assert b"hunter2" not in orjson.dumps(made) and b"a.example.com" not in orjson.dumps(made)
    different = [endpoint("a"), endpoint("b", timeout_seconds=3, retry={"max_attempts": 3})]
    made = document(parse_config({"facts": ROTATION, "endpoints": different}))
    assert "retry" not in made and "timeout_seconds" not in made


def test_without_keys_only_v1_is_announced() -> None:
    made = document(parse_config({"facts": {"egress": ["192.0.2.0/24"]}}))
    assert made["signature_versions"] == ["v1"] and made["keys"] == []


def test_without_addresses_there_is_nothing_to_publish() -> None:
    with pytest.raises(ConfigError, match=r"facts\.egress"):
        document(parse_config({}))


def test_an_endpoint_whose_key_is_not_in_force_is_named() -> None:
    config = parse_config({"facts": ROTATION})
    keys = {
        "hmac": (parse_key(new_secret()),),
        "now": (parse_key(PRIVATE),),
        "both": (parse_key(PRIVATE), parse_key(NEXT_PRIVATE)),
        "stranger": (parse_key(new_key_pair()[0]),),
    }
    assert list(unpublished(config, keys, BEFORE)) == ["stranger"]
    assert list(unpublished(config, keys, MARCH)) == ["now", "stranger"]
    assert list(unpublished(parse_config({}), keys, MARCH)) == []


@pytest.mark.parametrize("out", [True, False])
def test_the_command_prints_or_writes_the_document(tmp_path: Path, out: bool) -> None:
    path, target = tmp_path / "config.yaml", tmp_path / "facts.json"
    path.write_text(yaml.safe_dump({"facts": ROTATION}))
    more = ["--out", str(target)] if out else []
    done = CliRunner().invoke(cli, ["facts", "--config", str(path), *more])
    assert done.exit_code == 0, done.output
    content = target.read_bytes() if out else done.stdout_bytes
    assert parse_facts(content, time.time()).egress == ("192.0.2.0/24",)
    assert {p.name for p in tmp_path.iterdir()} == {"config.yaml"} | (
        {"facts.json"} if out else set()
    )


def test_check_config_tells_of_a_key_that_nobody_could_trust(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    config = {
        "kafka": {"topics": ["t"]},
        "facts": {"egress": ["192.0.2.0/24"], "keys": [{"public_key": NEXT}]},
        "endpoints": [endpoint("billing", secret={"env": "KEY"})],
    }
    path.write_text(yaml.safe_dump(config))
    for key, noted in ((PRIVATE, True), (NEXT_PRIVATE, False)):
        done = CliRunner().invoke(cli, ["check-config", "--config", str(path)], env={"KEY": key})
        assert done.exit_code == 0, done.output
        assert ("endpoint billing signs with an Ed25519 key" in done.stderr) is noted
