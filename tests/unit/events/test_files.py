"""Files become a catalogue, or every mistake in them is named with its line and a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from dispatcherd.errors import CatalogueError, UnknownEvent
from dispatcherd.events import SAMPLE, Catalogue, envelope, load
from dispatcherd.events.files import parse, read
from dispatcherd.events.lint import lint
from dispatcherd.events.source import Source

GOOD = """\
type: order.created
description: An order was placed.
versions:
  "1":
    schema:
      type: object
      required: [order]
      properties:
        order: {type: string, description: Its number.}
        lines:
          type: array
          description: What was ordered.
          items:
            type: object
            properties:
              price: {type: number, description: Of one.}
    example:
      order: A-1
      lines:
        - {price: 3}
"""


def problems(text: str) -> list[str]:
    """What is wrong with a catalogue of one file, one line each."""
    sources = [Source("order.yaml", text)]
    try:
        return [str(problem) for problem in lint(parse(sources), sources)]
    except CatalogueError as error:
        return [str(problem) for problem in error.problems]


MISTAKES = {
    "type: order.created": {
        "type: order created": "order.yaml:1: type: the event type is 'order created'. "
        "Write the event type: 1-128 characters of A-Z a-z 0-9 _ . : / -",
        "# no type": "order.yaml:2: type: the event type is missing. "
        "Write the event type: 1-128 characters of A-Z a-z 0-9 _ . : / -",
        "type: order.created\nowner: me": "order.yaml:2: owner: no such key. "
        "There are: type, description, versions",
        "type: [": "order.yaml: not YAML: a bracket is not closed, or a comma is missing "
        "(line 3, column 9). Check indentation, quotes and brackets there",
    },
    "description: An order was placed.": {
        "description: ''": "order.yaml:2: description: the description is ''. "
        "Say when this event happens",
        "description: x\ndescription: y": "order.yaml: description (line 3): it stands twice "
        "(first on line 2). Keep one of the two",
    },
    '  "1":': {
        '  "one two":': "order.yaml:4: versions.one two: no version that an event can have. "
        "Write 1-32 characters of A-Z a-z 0-9 _ . -",
        '  "1":\n    changed: x': "order.yaml:5: versions.1.changed: no such key. "
        "Did you mean changes?",
        '  "1":\n    deprecated: true': "order.yaml:5: versions.1.deprecated: `deprecated` is true "
        "or false. Say since when, and what to use instead",
    },
    "      type: object\n      required": {
        "      required": "order.yaml:5: versions.1.schema.type: an event's data is an object. "
        "Write `type: object`",
        "      type: objekt\n      required": "order.yaml:6: versions.1.schema.type: no type of "
        "JSON. Write one of string, integer, number, boolean, object, array, null, or a list of "
        "them",
        "      $schema: http://example.com\n      type: object\n      required": (
            "order.yaml:6: versions.1.schema.$schema: another dialect: 'http://example.com'. "
            "Write https://json-schema.org/draft/2020-12/schema, or leave it out"
        ),
    },
    "{type: string, description: Its number.}": {
        "{type: string}": "order.yaml:9: versions.1.schema.properties.order: the field order is "
        "not described. Write `description:`, a sentence for those who receive it",
        "{type: string, descriptoin: x, description: y}": "order.yaml:9: versions.1.schema."
        "properties.order.descriptoin: no keyword of JSON Schema, so nothing checks it. "
        "Did you mean description?",
        "{$ref: 'https://example.com/order'}": "order.yaml:9: versions.1.schema.properties.order."
        "$ref: it refers to 'https://example.com/order', which is not in this schema. "
        "Put it into $defs here and refer to '#/$defs/…'",
        "{$ref: '#/$defs/order'}": "order.yaml:9: versions.1.schema.properties.order.$ref: it "
        "refers to '#/$defs/order', which is not in this schema. "
        "Put it into $defs here and refer to '#/$defs/…'",
        "{type: string, minLength: -1, description: x}": "order.yaml:9: versions.1.schema."
        "properties.order.minLength: not JSON Schema: -1 is less than the minimum of 0. Mend it",
        "{type: string, pattern: '(', description: x}": "order.yaml:9: versions.1.schema."
        'properties.order.pattern: not JSON Schema: "(" is not a "regex". Mend it',
        "{type: integer, description: x}": "order.yaml:18: versions.1.example.order: not valid by "
        'its schema: "A-1" is not of type "integer". Correct one of the two',
        "{type: string, enum: [A-1, no], description: x}": "order.yaml:9: versions.1.schema."
        "properties.order.enum: False is not of type string. "
        "Correct it (yes, no, on, off and numbers are texts only in quotes)",
        "{type: string, description: x, maximum: .nan}": "order.yaml:9: versions.1.schema."
        "properties.order.maximum: JSON has no such number. Write a finite one",
        "{type: string, description: x}\n        on: {type: string, description: y}": (
            "order.yaml:8: versions.1.schema.properties: a key is read as True, which is no text. "
            "Put the key in quotes (on, off, yes, no and numbers need it)"
        ),
    },
    "required: [order]": {
        "required: [order, number]": "order.yaml:7: versions.1.schema.required: 'number' is "
        "required and not described. Describe it under `properties`, or take it off",
    },
    "{price: 3}": {
        "{price: 3, tax: 1}": "order.yaml:20: versions.1.example.lines[0].tax: the schema does not "
        "describe lines[].tax. Describe it in the schema, or take it out",
    },
    "    example:\n      order: A-1\n      lines:\n        - {price: 3}\n": {
        "": "order.yaml:4: versions.1.example: the example is missing. "
        "Write the event's `data`, an object",
    },
}
CASES = [(old, new, said) for old, found in MISTAKES.items() for new, said in found.items()]


def test_a_good_file_has_no_problem() -> None:
    assert problems(GOOD) == []


@pytest.mark.parametrize(("old", "new", "said"), CASES, ids=[new.strip() for _, new, _ in CASES])
def test_a_mistake_is_named_with_its_line_and_a_remedy(old: str, new: str, said: str) -> None:
    assert GOOD.count(old) == 1
    assert said in problems(GOOD.replace(old, new))


def test_all_mistakes_of_all_files_are_named_at_once() -> None:
    sources = [
        Source("a.yaml", GOOD.replace("order.created", "a b")),
        Source("b.yaml", GOOD.replace('"1"', '"?"')),
    ]
    with pytest.raises(CatalogueError) as refused:
        parse(sources)
    assert [problem.file for problem in refused.value.problems] == ["a.yaml", "b.yaml"]


def test_a_second_file_of_the_same_type_is_refused() -> None:
    with pytest.raises(CatalogueError, match=r"b.yaml:1: type: .* in a.yaml already"):
        parse([Source("a.yaml", GOOD), Source("b.yaml", GOOD)])


def test_a_version_may_be_written_as_a_number() -> None:
    catalogue = parse([Source("a.yaml", GOOD.replace('"1"', "1"))])
    assert list(catalogue.types["order.created"].versions) == ["1"]


def test_a_later_version_must_say_what_is_different() -> None:
    second = GOOD[GOOD.index('  "1":') :].replace('"1"', '"2"')
    [problem] = problems(GOOD + second)
    assert "order.yaml:21: versions.2: nothing says what is different" in problem


def test_an_example_may_be_deep_have_alternatives_and_fields_of_any_name() -> None:
    text = """
type: a
description: A.
versions:
  "1":
    schema:
      type: object
      description: A tree.
      properties:
        name: {type: string, description: Its name.}
        below: {type: array, description: What is below it., items: {$ref: "#"}}
        labels: {type: object, description: L., additionalProperties: {type: string}}
        owner:
          description: Whose.
          anyOf: [{type: "null"}, {type: object, properties: {id: {description: I.}}}]
    example: {name: a, below: [{name: b, below: [{name: c}]}], labels: {x: y}, owner: {id: 1}}
"""
    assert problems(text) == []
    [problem] = problems(text.replace("{name: c}", "{nam: c}"))
    assert "the schema does not describe below[].below[].nam" in problem
    [problem] = problems(text.replace("{id: 1}", "{ids: 1}"))
    assert "the schema does not describe owner.ids" in problem


def test_dates_stay_texts() -> None:
    catalogue = parse([Source("a.yaml", GOOD.replace("A-1", "2026-07-01"))])
    assert catalogue.event("order.created").example["order"] == "2026-07-01"


def test_json_is_taken_and_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "order.json").write_text(
        '{"type": "a", "description": "A.", "versions": {"1": {"schema": {"type": "object", '
        '"properties": {"x": {"description": "X."}}}, "example": {"x": 1}}}}'
    )
    (tmp_path / "README.md").write_text("Not an event type.")
    (tmp_path / "old").mkdir()
    assert list(load(tmp_path).types) == ["a"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: None, "there is no event type in it"),
        (lambda folder: folder.rmdir(), "cannot be read: No such file or directory"),
        (lambda folder: (folder / "a.yaml").write_bytes(b"type: \xff"), "a.yaml:1: not UTF-8"),
        (lambda folder: (folder / "a.yaml").write_text("#" * 5_000_000), "larger than 4 MiB"),
        (lambda folder: (folder / "a.yaml").write_text("[" * 5_000), "nested too deeply"),
    ],
    ids=["empty", "absent", "latin-1", "large", "deep"],
)
def test_what_cannot_be_read_is_refused_in_words(tmp_path: Path, make: object, said: str) -> None:
    folder = tmp_path / "events"
    folder.mkdir()
    make(folder)  # type: ignore[operator]
    with pytest.raises(CatalogueError) as refused:
        load(folder)
    assert said in str(refused.value)


# --- the sample, and looking things up ---------------------------------------------------------


@pytest.fixture(scope="module")
def sample() -> Catalogue:
    return load(SAMPLE)


def test_the_sample_is_in_order(sample: Catalogue) -> None:
    assert lint(sample, read(SAMPLE)) == []
    assert len(sample.types) > 10
    assert sum(len(found.versions) > 1 for found in sample.types.values()) >= 2


def test_the_newest_version_that_is_not_deprecated_is_the_current_one(sample: Catalogue) -> None:
    assert sample.event("order.created").version == "2"
    assert sample.event("order.created", "1").deprecated is not None
    last = GOOD + GOOD[GOOD.index('  "1":') :].replace('"1":', '"2":\n    deprecated: A mistake.')
    catalogue = parse([Source("a.yaml", last)])
    assert catalogue.event("order.created").version == "1"


def test_what_is_not_in_the_catalogue_is_refused_with_what_is(sample: Catalogue) -> None:
    with pytest.raises(UnknownEvent, match=r"Did you mean order\.created\?"):
        sample.event("order.creatd")
    with pytest.raises(UnknownEvent, match=r"It has: 1, 2"):
        sample.event("order.created", "3")


def test_an_envelope_is_a_whole_event(sample: Catalogue) -> None:
    event = sample.event("user.deleted")
    assert envelope(event, "evt_1", "2026-01-02T03:04:05Z") == {
        "id": "evt_1",
        "type": "user.deleted",
        "version": "1",
        "timestamp": "2026-01-02T03:04:05Z",
        "data": {"user": "c17"},
    }
