"""Links of READMEs as they stand on the site."""

from __future__ import annotations

import pytest

from docs.tools.links import DOCS, ROOT, relink

BENCH = DOCS / "reference" / "bench.md"


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("[a](CONTRIBUTING.md)", "{download}`a <../../CONTRIBUTING.md>`"),
        ("[a](systemd/README.md)", "[a](../operating/install.md)"),
        ("[a](systemd/README.md#run)", "[a](../operating/install.md#run)"),
        ("[a](README.md)", "[a](../index.md)"),
        ("[a](docs/guide/retries.md)", "[a](../guide/retries.md)"),
        ("[a](config.yaml)", "[a](../../config.yaml)"),
        ("[`a`](config.yaml)", "[`a`](../../config.yaml)"),
        ("see [a](tests) and [b](config.yaml)", "see a and [b](../../config.yaml)"),
        ("[a](https://example.com/x)", "[a](https://example.com/x)"),
        ("[a](#below)", "[a](#below)"),
        ("`[a](config.yaml)`", "`[a](config.yaml)`"),
        ("```md\n[a](config.yaml)\n```\n", "```md\n[a](config.yaml)\n```\n"),
        ("![a](docs/pipeline.svg)", "![a](docs/pipeline.svg)"),
    ],
)
def test_a_link_of_the_readme_leads_where_the_reader_of_the_site_can_follow(
    written: str, shown: str
) -> None:
    assert relink(written, ROOT / "README.md", BENCH) == shown


def test_a_page_of_the_site_keeps_its_own_links() -> None:
    text = "[a](../guide/retries.md#x), [b](#config-kafka), [`c`](bench.md)"
    assert relink(text, BENCH, BENCH) == text
