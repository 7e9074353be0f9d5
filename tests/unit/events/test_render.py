"""Documents of the catalogue: complete, valid, true to the sender, and safe to open."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson
import pytest
from markdown_it import MarkdownIt
from openapi_spec_validator import validate

from dispatcherd.events import SAMPLE, Catalogue, load
from dispatcherd.events.fields import fields
from dispatcherd.events.files import parse
from dispatcherd.events.render import FORMATS, About
from dispatcherd.events.render.about import EXAMPLE_SECONDS, EXAMPLE_TIME, headers
from dispatcherd.events.render.hoist import component
from dispatcherd.events.source import Source

SHOP = load(SAMPLE)
HOSTILE = parse(
    [
        Source(
            "a.yaml",
            """
type: a:b/c
description: |
  <script>alert(1)</script> [x](javascript:alert(1)) </script> | `a|b`
versions:
  "1":
    schema:
      type: object
      required: ["</style>"]
      properties:
        "</style>": {type: string, enum: ["<b>", "a|b", "`"], description: "A | B <img src=x>"}
        next: {$ref: "#"}
        money: {$ref: "#/$defs/a~1b/properties/value"}
      $defs:
        a/b: {type: object, properties: {value: {type: number, description: A value.}}}
    example: {"</style>": "<b>", money: 3}
""",
        )
    ]
)
BARE = About(bare=True)
BOTH = pytest.mark.parametrize("about", [About(), BARE], ids=["envelope", "bare"])
CATALOGUES = pytest.mark.parametrize("catalogue", [SHOP, HOSTILE], ids=["shop", "hostile"])


class Page(HTMLParser):
    """What is in a page: its tags, and the text of each row of its tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[str] = []
        self.text = ""
        self._within: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._within.append(tag)
        if tag == "tr":
            self.rows.append("")

    def handle_endtag(self, tag: str) -> None:
        while self._within and self._within.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "script" in self._within or "style" in self._within:
            return
        self.text += data
        if "tr" in self._within:
            self.rows[-1] += data


def rendered(format_: Any, catalogue: Catalogue, about: About | None = None) -> str:
    return FORMATS[format_].render(catalogue, about or About())


def document(format_: str, catalogue: Catalogue, about: About) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(rendered(format_, catalogue, about))
    return found


# --- HTML ----------------------------------------------------------------------------------


def test_the_page_has_every_field_of_every_version_with_its_meaning() -> None:
    page = Page(rendered("html", SHOP))
    for type_ in SHOP.types.values():
        assert type_.type in page.text
        for event in type_.versions.values():
            for field in fields(event.schema):
                kept = "required" if field.required else "optional"
                words = [field.name, field.type, kept, field.description.replace("`", "")]
                words += field.rules
                assert any(all(w in row for w in words) for row in page.rows), (event, field.name)


@CATALOGUES
def test_the_page_loads_nothing(catalogue: Catalogue) -> None:
    for tag, attributes in Page(rendered("html", catalogue)).tags:
        assert tag not in ("link", "img", "iframe", "object", "base")
        assert "src" not in attributes and "srcset" not in attributes
        link = attributes.get("href") or "#"
        assert link.startswith("#") or link == "https://www.standardwebhooks.com"
    policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    assert policy in rendered("html", catalogue)


def test_what_a_catalogue_says_is_text_in_the_page() -> None:
    page = Page(rendered("html", HOSTILE))
    counts = {tag: sum(one == tag for one, _ in page.tags) for tag in ("script", "style", "img")}
    assert counts == {"script": 1, "style": 1, "img": 0}
    assert "<script>alert(1)</script>" in page.text and "A | B <img src=x>" in page.text
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_the_ids_of_a_page_are_unique_and_its_links_lead_somewhere() -> None:
    tags = Page(rendered("html", SHOP)).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in tags:
        link = attributes.get("href") or ""
        assert not link.startswith("#") or link[1:] in ids


# --- Markdown ------------------------------------------------------------------------------


@CATALOGUES
def test_the_rows_of_the_markdown_have_the_cells_of_their_head(catalogue: Catalogue) -> None:
    text = rendered("markdown", catalogue)
    for block in re.findall(r"(?m)^(?:\|.*\n)+", text):
        counts = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(counts) == 1, block
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    rows = sum(token.type == "tr_open" for token in tokens)
    versions = [v for found in catalogue.types.values() for v in found.versions.values()]
    assert rows == 8 + 4 + sum(1 + len(fields(version.schema)) for version in versions)


# --- AsyncAPI and OpenAPI (the official schema of AsyncAPI: tests/integration) --------------


@CATALOGUES
@BOTH
def test_the_openapi_document_is_valid(catalogue: Catalogue, about: About) -> None:
    validate(document("openapi", catalogue, about))


def _bodies(document_: dict[str, Any]) -> dict[str, tuple[str, Any]]:
    """Name of a version → where the schema of its body is, and the example."""
    if "openapi" in document_:
        content = "requestBody/content/application~1json"
        return {
            name: (
                f"#/webhooks/{name}/post/{content}/schema",
                webhook["post"]["requestBody"]["content"]["application/json"]["examples"][
                    "example"
                ]["value"],
            )
            for name, webhook in document_["webhooks"].items()
        }
    return {
        name: (f"#/components/messages/{name}/payload", message["examples"][0]["payload"])
        for name, message in document_["components"]["messages"].items()
    }


@pytest.mark.parametrize("format_", ["asyncapi", "openapi"])
@CATALOGUES
@BOTH
def test_each_example_is_valid_by_the_schema_that_stands_beside_it(
    format_: str, catalogue: Catalogue, about: About
) -> None:
    whole = document(format_, catalogue, about)
    bodies = _bodies(whole)
    versions = [v for found in catalogue.types.values() for v in found.versions.values()]
    assert set(bodies) == {component(version) for version in versions}
    for version in versions:
        place, example = bodies[component(version)]
        validator = jsonschema_rs.Draft202012Validator({**whole, "$ref": place}, offline=True)
        assert validator.is_valid(example)
        first = version.schema["required"][0]
        broken = {name: value for name, value in version.example.items() if name != first}
        assert not validator.is_valid(broken if about.bare else {**example, "data": broken})


@pytest.mark.parametrize("format_", ["asyncapi", "openapi"])
def test_references_lead_into_the_document(format_: str) -> None:
    text = rendered(format_, SHOP)
    assert "$defs" not in text
    whole = orjson.loads(text)
    for reference in set(re.findall(r'"\$ref": "([^"]+)"', text)):
        found = whole
        for step in reference.removeprefix("#/").split("/"):
            found = found[step]


def test_a_deprecated_version_is_marked_in_every_document() -> None:
    old = document("openapi", SHOP, About())["webhooks"]
    assert old["order.created.v1"]["post"]["deprecated"] is True
    assert "deprecated" not in old["order.created.v2"]["post"]
    messages = document("asyncapi", SHOP, About())["components"]["messages"]
    assert messages["order.created.v1"]["payload"]["deprecated"] is True
    assert "### order.created, version 1, deprecated" in rendered("markdown", SHOP)
    assert 'badge old">deprecated' in rendered("html", SHOP)


# --- truth ---------------------------------------------------------------------------------


def test_the_headers_are_those_that_the_readme_has_from_the_sender() -> None:
    # tests/acceptance/test_docs.py holds the README's table against a request.
    readme = (Path(__file__).parents[3] / "README.md").read_text()
    table = readme[readme.index("| header | content |") :].split("\n\n")[0]
    sent = set(re.findall(r"(?m)^\| `([a-z-]+)` \|", table))
    described = {header.name for header in headers(SHOP.event("order.created"))}
    assert described == sent - {"user-agent"}


def test_the_example_is_of_one_moment() -> None:
    from datetime import datetime

    assert datetime.fromisoformat(EXAMPLE_TIME).timestamp() == EXAMPLE_SECONDS


@pytest.mark.parametrize("format_", list(FORMATS))
def test_the_same_catalogue_gives_the_same_text(format_: str) -> None:
    assert rendered(format_, SHOP) == rendered(format_, load(SAMPLE))
