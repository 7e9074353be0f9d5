"""No secret is shown: not in what check-config prints, not in what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from dispatcherd.config.explain import model_below
from dispatcherd.config.load import load_config, parse_config
from dispatcherd.config.model import Config
from dispatcherd.config.show import changed, effective, has_password, mask_dsn
from dispatcherd.errors import ConfigError

MARK = "hunter2"
FILLED: dict[str, Any] = {
    "allow_inline_secrets": True,
    "kafka": {"sasl": {"username": "u", "password": {"inline": f"{MARK}-sasl"}}},
    "postgres": {
        "dsn": f"postgresql://u:{MARK}-dsn@db/x?sslpassword={MARK}-ssl",
        "listen_dsn": f"postgresql://db/x?user=u&password={MARK}-listen",
        "password": {"inline": f"{MARK}-postgres"},
    },
    "endpoints": [
        {
            "id": "a",
            "url": "https://a.example.com/",
            "secret": {"inline": f"whsec_{MARK}{MARK}{MARK}{MARK}{MARK}9"},
            "secrets": [{"inline": f"{MARK}{MARK}{MARK}"}],
            "headers": {"Authorization": f"Bearer {MARK}", "X-Environment": f"{MARK}"},
        }
    ],
}


def test_the_effective_configuration_holds_no_secret_of_any_kind() -> None:
    config = parse_config(FILLED)
    shown = effective(config)
    assert MARK not in shown
    document = yaml.safe_load(shown)
    assert document["kafka"]["sasl"]["password"]["inline"] == "***"
    assert document["postgres"]["dsn"] == "postgresql://u:***@db/x?sslpassword=***"
    assert document["postgres"]["listen_dsn"] == "postgresql://db/x?user=u&password=***"
    assert document["endpoints"][0]["headers"] == {"Authorization": "***", "X-Environment": "***"}
    assert document["endpoints"][0]["secrets"] == [
        {"file": None, "credential": None, "env": None, "inline": "***"}
    ]
    for text in (repr(config), str(config)):
        assert f"{MARK}-sasl" not in text and f"{MARK}{MARK}" not in text


def test_the_effective_configuration_keeps_what_is_no_secret() -> None:
    document = yaml.safe_load(effective(parse_config(FILLED)))
    assert document["postgres"]["schema_name"] == "dispatcherd"
    assert document["kafka"]["sasl"]["username"] == "u"
    assert document["endpoints"][0]["url"] == "https://a.example.com/"


passwords = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=12).map(
    lambda text: f"{MARK}{text}{MARK}"
)


@given(passwords)
def test_a_dsn_is_shown_without_its_password_however_it_is_written(password: str) -> None:
    quoted = quote(password, safe="")
    escaped = password.replace("\\", "\\\\").replace("'", "\\'")
    for dsn in (
        f"postgresql://u:{quoted}@db:5432/x",
        f"postgresql://:{quoted}@db/x",
        f"postgresql://u:{password}@db:5432/x?sslmode=require",  # as nobody should, and many do
        f"postgresql://db/x?user=u&password={quoted}&sslmode=require",
        f"host=db password='{escaped}' user=u",
        f"host=db PASSWORD = {quoted} user=u",
    ):
        shown = mask_dsn(dsn)
        assert MARK not in shown, dsn
        assert "db" in shown


@pytest.mark.parametrize(
    ("dsn", "shown"),
    [
        ("postgresql://u:p@db:5432/x", "postgresql://u:***@db:5432/x"),
        ("postgresql://u@db:5432/x?application_name=a", None),
        ("postgresql://db:5432,other:5433/x", None),
        ("postgresql:///x?host=/run/postgresql", None),
        ("postgresql://u:p@q@db/x", "postgresql://u:***@db/x"),
        ("postgresql://u:p/q@db/x", "postgresql://u:***@db/x"),
        ("postgresql://db/x?password=a&sslmode=require", "postgresql://db/x?password=***&sslmode=require"),
        ("host=db password='a b\\' c' user=u", "host=db password=*** user=u"),
    ],
)  # fmt: skip
def test_of_a_dsn_only_the_password_is_masked(dsn: str, shown: str | None) -> None:
    assert mask_dsn(dsn) == (dsn if shown is None else shown)


def test_a_dsn_without_a_password_is_known_to_have_none() -> None:
    assert not has_password("postgresql://u@db:5432/x?application_name=me@here")
    assert not has_password("postgresql:///x")
    assert has_password("postgresql://u:p@db/x")
    assert has_password("postgresql://db/x?password=p")


def paths(model: type[BaseModel], at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every key of the model, lists at their first item."""
    found: list[tuple[Any, ...]] = []
    for name, field in model.model_fields.items():
        found.append((*at, name))
        below = model_below(field.annotation)
        if below is not None:
            many = "list" in str(field.annotation)
            found += paths(below, (*at, name, 0) if many else (*at, name))
    return found


PATHS = paths(Config)
SECRET_KEYS = ("password", "secret", "secrets", "headers", "dsn", "listen_dsn")
SECTIONS = [p for p in PATHS if any(len(q) > len(p) and q[: len(p)] == p for q in PATHS)]


def document_with(path: tuple[Any, ...], value: Any) -> Any:
    for step in reversed(path):
        value = [value] if isinstance(step, int) else {step: value}
    return value


VALUES: list[Any] = [MARK, [MARK], {MARK: MARK}, {"x": [MARK]}, f"postgresql://u:{MARK}@h/d"]


def places() -> Iterator[tuple[Any, ...]]:
    """Where a secret may stand by mistake or by right: its own key, a section's place, a key that
    nobody knows. In the other places a value is shown: that is the use of a message."""
    for path in PATHS:
        yield (*path[:-1], f"{path[-1]}_")
        yield (*path, "inner")
        if path[-1] in ("credential", "env"):
            continue  # names of where a secret is kept
        if path in SECTIONS or any(step in SECRET_KEYS for step in path):
            yield path


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_no_message_shows_a_text_from_a_place_where_a_secret_may_stand(value: Any) -> None:
    count = 0
    for path in places():
        try:
            shown = effective(parse_config(document_with(path, value)))
        except ConfigError as error:
            shown = "\n".join(f"{p.value} {p.trouble} {p.remedy}" for p in error.problems)
        assert MARK not in shown, path
        count += 1
    assert count > 300


def test_the_environment_is_masked_like_the_file() -> None:
    for name in ("POSTGRES__DSN", "POSTGRES", "KAFKA__SASL", "KAFKA__SASL__PASSWORD", "ENDPOINTS"):
        with pytest.raises(ConfigError) as caught:
            load_config(None, {f"DISPATCHERD_{name}": MARK})
        assert MARK not in str(caught.value), name
        assert f"(from DISPATCHERD_{name})" in str(caught.value)


def test_a_changed_inline_secret_needs_a_restart_and_is_not_named() -> None:
    old = parse_config(FILLED)
    postgres = {**FILLED["postgres"], "password": {"inline": "another one"}}
    new = parse_config({**FILLED, "postgres": postgres, "log": {"level": "debug"}})
    assert changed(old, new) == ["postgres.password"]
