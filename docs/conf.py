"""Sphinx's settings. `make docs` builds the site; nothing is fetched for it."""

from __future__ import annotations

import sys
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))  # docs.tools and dispatcherd are those beside this file

from dispatcherd import __version__  # noqa: E402
from docs.tools import links, reference  # noqa: E402

project = "dispatcherd"
author = "the authors of dispatcherd"
copyright = "the authors of dispatcherd; Apache License 2.0"
version = release = __version__

extensions = ["myst_parser", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "tools"]
myst_enable_extensions = ["deflist", "colon_fence"]
myst_heading_anchors = 3
nitpicky = True

html_theme = "furo"
html_title = f"dispatcherd {__version__}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["vectors.json"]
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {"top_of_page_buttons": []}
copybutton_exclude = ".linenos, .gp, .go"

# What is made from the program itself is made at each build, and never goes stale in git.
reference.write(HERE / "reference", HERE.parent / "config.yaml")


def _relink_page(app: Sphinx, name: str, content: list[str]) -> None:
    page = HERE / f"{name}.md"
    if name == "index":  # takes in whatever page lies beside it
        beside = sorted(p.stem for p in HERE.glob("*.md") if p != page)
        content[0] = content[0].replace("\n*\n", "\n" + "".join(f"{p}\n" for p in beside))
    content[0] = links.relink(content[0], page, page)


def _relink_included(app: Sphinx, path: Path, _stem: str, content: list[str]) -> None:
    source = (HERE / path).resolve()
    if source.suffix == ".md":
        content[0] = links.relink(content[0], source, HERE / f"{app.env.docname}.md")


def _give_drawings_room(app: Sphinx, document: nodes.document) -> None:
    """Put each drawing into a box of its own, which scrolls where the screen is narrow."""
    for image in list(document.findall(nodes.image)):
        box = nodes.container(classes=["drawing"])
        image.replace_self(box)
        box += image


def setup(app: Sphinx) -> None:
    """See Sphinx."""
    app.connect("source-read", _relink_page)
    app.connect("include-read", _relink_included)
    app.connect("doctree-read", _give_drawings_room)
