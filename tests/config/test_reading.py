"""Reading: files and secrets to a bound, YAML's traps, keys as they are meant."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcherd.config.document import parse_document, read_file
from dispatcherd.config.load import load_again, load_config, parse_config
from dispatcherd.config.model import SecretSource
from dispatcherd.config.secrets import load_secrets, read_secret
from dispatcherd.errors import ConfigError
from dispatcherd.keys import parse_key

VECTOR = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def problem(error: pytest.ExceptionInfo[ConfigError]) -> str:
    (only,) = error.value.problems
    return str(only)


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    large = tmp_path / "large.yaml"
    with large.open("wb") as file:
        file.truncate(64 * 1024 * 1024 + 1)
    with pytest.raises(ConfigError) as caught:
        read_file(str(large))
    assert "larger than 64 MiB" in problem(caught)


@pytest.mark.parametrize("name", ["", "missing.yaml"])
def test_what_cannot_be_read_is_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_file(str(tmp_path / name))
    assert "cannot be read: " in problem(caught)


def test_aliases_that_multiply_are_neither_expanded_nor_printed(tmp_path: Path) -> None:
    """Nine levels of ten: a thousand million values in 300 bytes."""
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join([*levels, "endpoints: *a8", "kafka: {topics: *a8}"]))
    with pytest.raises(ConfigError) as caught:
        load_config(str(path), {})
    assert len(str(caught.value)) < 10_000


def test_an_alias_of_itself_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ring.yaml"
    path.write_text("endpoints: &e\n  - *e\nkafka: &k\n  tls: *k\n")
    with pytest.raises(ConfigError):
        load_config(str(path), {})


def test_a_date_is_a_text(tmp_path: Path) -> None:
    path = tmp_path / "dates.yaml"
    path.write_text("a: 2026-01-02\nb: 2026-13-45\nc: 2026-01-02T03:04:05Z\n")
    assert parse_document(str(path), path.read_bytes()) == {
        "a": "2026-01-02",
        "b": "2026-13-45",
        "c": "2026-01-02T03:04:05Z",
    }


@given(st.binary(max_size=200))
def test_any_bytes_are_a_document_or_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.mktemp("any") / "x.yaml"
    path.write_bytes(content)
    try:
        load_config(str(path), {})
    except ConfigError as error:
        assert all(p.key and p.value and p.trouble and p.remedy for p in error.problems)


@given(st.text(st.sampled_from("abk:-[]{}&*!|>'\"\\\n\t #%@,?0.~"), max_size=60))
def test_any_text_of_yaml_signs_is_a_document_or_a_refusal(
    tmp_path_factory: pytest.TempPathFactory, content: str
) -> None:
    path = tmp_path_factory.mktemp("any") / "x.yaml"
    path.write_text(content)
    try:
        load_config(str(path), {"DISPATCHERD_KAFKA__TOPICS": content.replace("\0", "")})
    except ConfigError as error:
        assert all(p.key and p.value and p.trouble and p.remedy for p in error.problems)


def test_every_mistake_is_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("kafka: {topcis: []}\nadmin: {port: -1}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(str(path), {"DISPATCHERD_LOG__LEVEL": "loud", "DISPATCHERD_NO_SUCH": "x"})
    assert [p.key for p in caught.value.problems] == [
        "DISPATCHERD_NO_SUCH",
        "kafka.topcis",
        "admin.port",
        "log.level (from DISPATCHERD_LOG__LEVEL)",
    ]


def test_a_password_in_a_dsn_is_taken_from_the_environment_and_not_from_the_file() -> None:
    dsn = "postgresql://u:hunter2@db/x"
    assert load_config(None, {"DISPATCHERD_POSTGRES__DSN": dsn}).postgres.dsn == dsn
    with pytest.raises(ConfigError) as caught:
        parse_config({"postgres": {"dsn": dsn}})
    assert "DISPATCHERD_POSTGRES__DSN" in problem(caught)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"abc", "abc"),
        (b"abc\n", "abc"),
        (b"abc\r\n", "abc"),
        (b"abc\n\n", "abc\n"),
        (b" abc ", " abc "),
        ("gehéim".encode(), "gehéim"),
    ],
)
def test_a_secret_from_a_file_is_its_text_without_the_line_break_at_its_end(
    tmp_path: Path, content: bytes, text: str
) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    assert read_secret(SecretSource(file=str(path)), {}) == text


def test_a_secret_file_that_is_no_text_is_refused_without_showing_it(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"hunter2\xff")
    endpoint = {"id": "a", "url": "https://a.example.com", "secret": {"file": str(path)}}
    with pytest.raises(ConfigError) as caught:
        load_secrets(parse_config({"endpoints": [endpoint]}), {})
    assert "not UTF-8" in problem(caught)
    assert "hunter2" not in problem(caught)


def test_secrets_do_not_show_themselves() -> None:
    endpoint = {"id": "a", "url": "https://a.example.com", "secret": {"env": "X"}}
    secrets = load_secrets(parse_config({"endpoints": [endpoint]}), {"X": VECTOR})
    assert secrets.endpoint_keys["a"] == (parse_key(VECTOR),)
    assert "b'" not in repr(secrets) and VECTOR not in repr(secrets)


@given(st.binary(min_size=24, max_size=64))
def test_a_key_is_what_its_base64_says_with_and_without_padding(key: bytes) -> None:
    encoded = base64.b64encode(key).decode()
    assert parse_key(f"whsec_{encoded}") == key
    assert parse_key(f"whsec_{encoded.rstrip('=')}") == key


@given(st.binary(max_size=23) | st.binary(min_size=65, max_size=80))
def test_a_key_of_another_length_is_refused(key: bytes) -> None:
    with pytest.raises(ValueError, match=r"24 to 64|not base64"):
        parse_key("whsec_" + base64.b64encode(key).decode())


def test_what_neither_file_nor_variables_have_changed_is_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("kafka: {topics: [orders]}\n")
    first = load_again(str(path), {}, None)
    assert load_again(str(path), {"HOME": "/"}, first) is first
    other = load_again(str(path), {"DISPATCHERD_KAFKA__GROUP_ID": "other"}, first)
    assert other.config.kafka.group_id == "other"
    path.write_text("kafka: {topics: [users]}\n")
    assert load_again(str(path), {}, first).config.kafka.topics == ["users"]
