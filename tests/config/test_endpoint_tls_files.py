"""What can be wrong with an endpoint's TLS files, and that no key is shown for it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from dispatcherd.config.load import parse_config
from dispatcherd.config.secrets import Secrets, load_secrets
from dispatcherd.errors import ConfigError
from tests.rig.authority import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def read(tls: dict[str, Any], environ: dict[str, str] | None = None, **options: Any) -> Secrets:
    endpoint = {"id": "a", "url": "https://a.example.com/", "sign": {"standard": False}}
    document = {"endpoints": [{**endpoint, "tls": tls}]}
    return load_secrets(parse_config(document), environ or {}, **options)


def refused(tls: dict[str, Any], environ: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        read(tls, environ)
    return str(caught.value)


def test_a_key_of_another_certificate_is_refused(authority: Authority) -> None:
    certificate, _ = authority.issue(["a"])
    _, key = authority.issue(["b"])
    said = refused({"client_certificate_file": str(certificate), "client_key": {"file": str(key)}})
    assert said == (
        f"endpoints[0] (a).tls.client_key = {{file: {key}}}: it is not the key of that "
        "certificate. Name the key that the certificate was made for"
    )


def test_a_key_with_a_passphrase_is_refused_without_asking_for_it(
    authority: Authority, tmp_path: Path
) -> None:
    certificate, key = authority.issue(["a"])
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "pkey", "-in", key, "-aes256", "-passout", "pass:hunter2", "-out", locked],
        check=True, timeout=30,
    )  # fmt: skip
    said = refused(
        {"client_certificate_file": str(certificate), "client_key": {"file": str(locked)}}
    )
    assert "it has a passphrase" in said
    assert "openssl pkey" in said


def test_a_certificate_in_place_of_the_key_is_refused(authority: Authority) -> None:
    certificate, _ = authority.issue(["a"])
    same = str(certificate)
    said = refused({"client_certificate_file": same, "client_key": {"file": same}})
    assert "it is no private key in PEM form" in said


def test_a_broken_key_is_refused_without_a_word_of_it(authority: Authority) -> None:
    certificate, key = authority.issue(["a"])
    words = key.read_text().splitlines()
    broken = "\n".join([words[0], words[1][::-1], words[-1]])
    tls = {"client_certificate_file": str(certificate), "client_key": {"env": "KEY"}}
    said = refused(tls, {"KEY": broken})
    assert "TLS cannot use it with that certificate" in said
    assert words[1][::-1] not in said and words[1] not in said


@pytest.mark.parametrize("content", ["", "nothing", "-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_an_empty_or_broken_file_of_authorities_is_refused_and_never_means_the_systems(
    tmp_path: Path, content: str
) -> None:
    path = tmp_path / "ca.pem"
    path.write_text(content)
    assert "no certificate can be read from it" in refused({"ca_file": str(path)})


def test_a_key_is_read_from_a_credential_or_a_variable(
    authority: Authority, tmp_path: Path
) -> None:
    certificate, key = authority.issue(["a"])
    (tmp_path / "client-key").write_bytes(key.read_bytes())
    tls = {"client_certificate_file": str(certificate)}
    one = read(
        {**tls, "client_key": {"credential": "client-key"}},
        {"CREDENTIALS_DIRECTORY": str(tmp_path)},
    )
    other = read({**tls, "client_key": {"env": "KEY"}}, {"KEY": key.read_text().rstrip()})
    assert one.access["a"].tls is not None and other.access["a"].tls is not None
    # ExecReload= is run without credentials: what can be tried is tried.
    without = {**tls, "client_key": {"credential": "client-key"}}
    assert read(without, {}, credentials=False).access["a"].tls is not None
    with pytest.raises(ConfigError):
        read({**without, "client_certificate_file": "/dev/null"}, {}, credentials=False)
