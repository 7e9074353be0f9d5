"""An endpoint's own TLS: its authority, its client certificate, its least version.

Contexts are those that the configuration makes of files; each test runs with both exchanges.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from dispatcherd.config.load import parse_config
from dispatcherd.config.secrets import load_secrets
from dispatcherd.delivery import Reason
from tests.rig.authority import Authority
from tests.rig.exchanges import Poster, Posters, poster, posters
from tests.rig.tls_receiver import TlsReceiver

__all__ = ["poster", "posters"]

Receiving = Callable[..., TlsReceiver]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"), "a stranger")


@pytest.fixture
def receiving(authority: Authority) -> Iterator[Receiving]:
    """Makes receivers on 127.0.0.1. `clients`: the authority of the certificates they ask for."""
    made = []

    def make(
        clients: Authority | None = None,
        most: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
        names: list[str] | None = None,
        expired: bool = False,
    ) -> TlsReceiver:
        context = authority.serving(names or ["127.0.0.1"], expired)
        context.maximum_version = most
        if clients is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(cafile=clients.file())
        made.append(TlsReceiver(context))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def configured(**tls: Any) -> ssl.SSLContext:
    """The context that an endpoint's `tls` section makes."""
    endpoint = {"id": "a", "url": "https://a.example.com/", "sign": {"standard": False}}
    secrets = load_secrets(parse_config({"endpoints": [{**endpoint, "tls": tls}]}), {})
    context = secrets.access["a"].tls
    assert context is not None
    return context


def identity(authority: Authority, name: str, expired: bool = False) -> dict[str, Any]:
    """A client certificate and its key, as keys of `tls`."""
    certificate, key = authority.issue([name], expired)
    return {"client_certificate_file": str(certificate), "client_key": {"file": str(key)}}


async def test_an_endpoints_authority_is_trusted_for_that_endpoint_alone(
    poster: Poster, authority: Authority, receiving: Receiving
) -> None:
    receiver = receiving()
    own = configured(ca_file=str(authority.file()))
    assert (await poster.post(receiver.url, tls=own)).status == 200
    refused = await poster.post(receiver.url)
    assert (refused.failure, refused.sent) == (Reason.TLS_UNKNOWN_ISSUER, False)
    assert len(receiver.asked) == 1


async def test_another_authority_than_the_endpoints_is_refused(
    poster: Poster, stranger: Authority, receiving: Receiving
) -> None:
    receiver = receiving()
    response = await poster.post(receiver.url, tls=configured(ca_file=str(stranger.file())))
    assert (response.failure, response.sent) == (Reason.TLS_UNKNOWN_ISSUER, False)
    assert receiver.asked == []


@pytest.mark.parametrize(
    ("serving", "reason"),
    [
        ({"expired": True}, Reason.TLS_EXPIRED),
        ({"names": ["elsewhere.example.com"]}, Reason.TLS_WRONG_HOST),
        ({"most": ssl.TLSVersion.TLSv1_2}, Reason.TLS_VERSION),
    ],
    ids=["expired", "wrong_host", "version_too_low"],
)
async def test_with_an_authority_of_its_own_the_receiver_is_verified_all_the_same(
    poster: Poster,
    authority: Authority,
    receiving: Receiving,
    serving: dict[str, Any],
    reason: Reason,
) -> None:
    receiver = receiving(**serving)
    own = configured(ca_file=str(authority.file()), minimum_version="1.3")
    response = await poster.post(receiver.url, tls=own)
    assert (response.failure, response.sent) == (reason, False)
    assert receiver.asked == []


async def test_a_client_certificate_is_shown(
    poster: Poster, authority: Authority, receiving: Receiving
) -> None:
    receiver = receiving(clients=authority)
    own = configured(ca_file=str(authority.file()), **identity(authority, "dispatcherd.example"))
    assert (await poster.post(receiver.url, tls=own)).status == 200
    assert receiver.asked == [(1, "dispatcherd.example")]


@pytest.mark.parametrize("which", ["none", "of_a_stranger", "expired"])
async def test_a_client_certificate_that_is_missing_or_refused_is_named(
    poster: Poster, authority: Authority, stranger: Authority, receiving: Receiving, which: str
) -> None:
    receiver = receiving(clients=authority)
    shown = {
        "none": {},
        "of_a_stranger": identity(stranger, "a"),
        "expired": identity(authority, "a", expired=True),
    }
    own = configured(ca_file=str(authority.file()), **shown[which])
    response = await poster.post(receiver.url, tls=own)
    assert receiver.asked == []
    if poster.kind == "reference" and response.failure is Reason.DISCONNECTED:
        return  # the alert came while aiohttp wrote the body: it keeps no word of it
    assert response.failure is Reason.TLS_CLIENT_CERTIFICATE, response.detail
    assert "alert" in response.detail


@pytest.mark.parametrize("which", ["of_a_stranger", "expired"])
async def test_under_tls_1_2_a_refused_client_certificate_is_named_before_a_byte_is_sent(
    poster: Poster, authority: Authority, stranger: Authority, receiving: Receiving, which: str
) -> None:
    receiver = receiving(clients=authority, most=ssl.TLSVersion.TLSv1_2)
    expired = which == "expired"
    shown = identity(authority if expired else stranger, "a", expired)
    own = configured(ca_file=str(authority.file()), **shown)
    response = await poster.post(receiver.url, tls=own)
    assert (response.failure, response.sent) == (Reason.TLS_CLIENT_CERTIFICATE, False)


async def test_endpoints_with_different_certificates_never_share_a_connection(
    poster: Poster, authority: Authority, receiving: Receiving
) -> None:
    receiver = receiving(clients=authority)
    ca = str(authority.file())
    one = configured(ca_file=ca, **identity(authority, "one"))
    other = configured(ca_file=ca, **identity(authority, "other"))
    for tls in (one, other, one, other, other, one):
        assert (await poster.post(receiver.url, tls=tls)).status == 200
    assert [name for _, name in receiver.asked] == ["one", "other", "one", "other", "other", "one"]
    assert len({number for number, _ in receiver.asked}) == 2


async def test_endpoints_with_the_same_tls_share_connections_also_after_a_reload(
    poster: Poster, authority: Authority, receiving: Receiving
) -> None:
    receiver = receiving(clients=authority)
    keys = {"ca_file": str(authority.file()), **identity(authority, "one")}
    first = configured(**keys)
    assert configured(**keys) is first
    for tls in (first, configured(**keys), configured(**keys)):
        assert (await poster.post(receiver.url, tls=tls)).status == 200
    assert {number for number, _ in receiver.asked} == {1}


async def test_a_renewed_certificate_is_shown_from_then_on(
    poster: Poster, authority: Authority, receiving: Receiving
) -> None:
    receiver = receiving(clients=authority)
    keys = {"ca_file": str(authority.file()), **identity(authority, "old")}
    assert (await poster.post(receiver.url, tls=configured(**keys))).status == 200
    certificate, key = authority.issue(["new"])
    certificate.replace(keys["client_certificate_file"])
    key.replace(keys["client_key"]["file"])
    assert (await poster.post(receiver.url, tls=configured(**keys))).status == 200
    assert [name for _, name in receiver.asked] == ["old", "new"]


async def test_one_who_is_verified_with_an_own_authority_is_not_reached_over_anothers_connection(
    posters: Posters, authority: Authority, stranger: Authority, receiving: Receiving
) -> None:
    """An open connection that one endpoint's authority vouched for is no answer to another's."""
    receiver = receiving()
    poster = posters(tls=authority.trusting())
    assert (await poster.post(receiver.url)).status == 200
    response = await poster.post(receiver.url, tls=configured(ca_file=str(stranger.file())))
    assert response.failure is Reason.TLS_UNKNOWN_ISSUER
    assert len(receiver.asked) == 1
