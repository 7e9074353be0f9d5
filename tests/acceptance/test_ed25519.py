"""Ed25519 from end to end: signed by the daemon, trusted by its published facts, rotated."""

from __future__ import annotations

import signal
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dispatcherd.admin.facts import PATH
from dispatcherd.receiver import NoMatchingSignature
from dispatcherd.receiver.published import parse_facts
from dispatcherd.receiver.signing import new_key_pair
from dispatcherd.receiver.verify import Verifier
from tests.acceptance.scene import Scene
from tests.rig.daemon import Daemon
from tests.rig.waiting import wait_for

EGRESS = ["192.0.2.0/24"]


def published(one: Daemon) -> bytes:
    """The document at the admin port."""
    with urllib.request.urlopen(f"http://127.0.0.1:{one.port}{PATH}", timeout=5) as answer:
        assert answer.headers["content-type"] == "application/json"
        return bytes(answer.read())


def facts(keys: list[str]) -> dict[str, Any]:
    """What is published: addresses, and these public keys."""
    return {"egress": EGRESS, "keys": [{"public_key": key} for key in keys]}


def trusted(one: Daemon) -> Verifier:
    """What somebody who reads the facts now will believe."""
    return Verifier(parse_facts(published(one)).public_keys)


def accepts(verifier: Verifier, headers: dict[str, str], body: bytes) -> bool:
    try:
        verifier.verify(headers, body, int(headers["webhook-timestamp"]))
    except NoMatchingSignature:
        return False
    return True


def send(here: Scene, number: int) -> tuple[dict[str, str], bytes]:
    """Another event; its request."""
    here.publish([number])
    here.wait_accepted("a", range(number + 1))
    return here.receivers.ledger("a").kept[-1]


def reload(one: Daemon, keys: list[str], signs: list[dict[str, str]]) -> None:
    """Publish these keys from now on, and sign with these."""
    [endpoint] = one.config["endpoints"]
    changed = {**endpoint, "secret": signs[0], "secrets": signs[1:]}
    one.write({**one.config, "facts": facts(keys), "endpoints": [changed]})
    before = one.log().count('"reloaded"')
    one.signal(signal.SIGHUP)
    wait_for(lambda: one.log().count('"reloaded"') > before, 20, "the reload")


def test_a_receiver_that_knows_the_facts_alone_follows_a_rotation_of_keys(
    scene: Callable[..., Scene], tmp_path: Path
) -> None:
    here = scene(1)
    files, public = [tmp_path / "old", tmp_path / "new"], []
    for file in files:
        private, theirs = new_key_pair()
        file.write_text(private + "\n")
        public.append(theirs)
    old, new = ({"file": str(file)} for file in files)
    one = here.start(here.endpoint("a", secret=old), facts=facts(public[:1]))

    at_first = trusted(one)
    headers, body = send(here, 0)
    assert headers["webhook-signature"].startswith("v1a,")
    assert accepts(at_first, headers, body) and not accepts(at_first, headers, body + b" ")

    reload(one, public, [old])  # the new key is announced before it signs
    announced = trusted(one)
    reload(one, public, [old, new])
    both, body = send(here, 1)
    assert [s[:4] for s in both["webhook-signature"].split(" ")] == ["v1a,", "v1a,"]
    assert accepts(at_first, both, body) and accepts(announced, both, body)

    reload(one, public[1:], [new])
    headers, body = send(here, 2)
    assert accepts(announced, headers, body) and accepts(trusted(one), headers, body)
    assert not accepts(at_first, headers, body)


def test_without_addresses_nothing_is_published(scene: Callable[..., Scene]) -> None:
    one = scene(1).start()
    with pytest.raises(urllib.error.HTTPError) as caught:
        published(one)
    assert caught.value.code == 404 and b"facts.egress" in caught.value.read()
