"""Links that are right for a reader of the source tree, made right for a reader of the site.

A README links to files beside it; on the site it is a page at another place. A link to a document
that is a page leads to that page, a link to any other file to a copy of it, and a link to a folder
is only its words. Invariant: what stands in code is left alone. Leaves out: whether a page has the
anchor (Sphinx, and tests/acceptance/test_site.py).
"""

from __future__ import annotations

import os
import re
from pathlib import Path

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent
PAGES = {
    ROOT / "README.md": DOCS / "index.md",
    ROOT / "CHANGELOG.md": DOCS / "reference" / "changelog.md",
    ROOT / "bench" / "README.md": DOCS / "reference" / "bench.md",
    ROOT / "bench" / "published" / "results.md": DOCS / "reference" / "bench-results.md",
    ROOT / "examples" / "MATRIX.md": DOCS / "reference" / "matrix.md",
    ROOT / "examples" / "README.md": DOCS / "reference" / "samples.md",
    ROOT / "examples" / "receivers" / "README.md": DOCS / "reference" / "sample-receivers.md",
    ROOT / "receiver" / "README.md": DOCS / "reference" / "receiver.md",
    ROOT / "systemd" / "README.md": DOCS / "operating" / "install.md",
}
"""Documents of the source tree, and the page that includes each."""
_LINK = re.compile(r"(?<!!)\[(?P<words>[^\[\]]*)\]\((?P<path>[^()\s#:]+)(?P<anchor>#[^()\s]*)?\)")
_CODE = re.compile(r"(^(?P<fence>`{3,}|:{3,}).*?^(?P=fence)\s*$|`[^`\n]+`)", re.M | re.S)


def relink(text: str, source: Path, page: Path) -> str:
    """Markdown that stands in `source` and is shown as `page`, with its links made right."""
    shown: list[str] = []
    at = 0
    for code in _CODE.finditer(text):
        if code["fence"] is None and _inside_link(text, code):
            continue  # the words of a link: `[`key`](path)`
        shown.append(_LINK.sub(lambda m: _link(m, source, page), text[at : code.start()]))
        shown.append(code.group())
        at = code.end()
    shown.append(_LINK.sub(lambda m: _link(m, source, page), text[at:]))
    return "".join(shown)


def _inside_link(text: str, code: re.Match[str]) -> bool:
    line = text[text.rfind("\n", 0, code.start()) + 1 : code.start()]
    return line.count("[") > line.count("]")


def _link(link: re.Match[str], source: Path, page: Path) -> str:
    words, anchor = link["words"], link["anchor"] or ""
    target = Path(os.path.normpath(source.parent / link["path"]))
    there = PAGES.get(target, target)
    path = os.path.relpath(there, page.parent)
    if there.is_dir():
        return words
    if there.suffix == ".md" and DOCS not in there.parents:
        return f"{{download}}`{words.replace('`', '')} <{path}>`"
    return f"[{words}]({path}{anchor})"
