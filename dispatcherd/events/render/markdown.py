"""The catalogue as one Markdown document.

Invariant: what stands in a table stays in its cell. Leaves out: the words (templates/events.md).
"""

from __future__ import annotations

from dispatcherd.events.catalogue import Catalogue
from dispatcherd.events.render.about import About
from dispatcherd.events.render.view import context, environment


def markdown(catalogue: Catalogue, about: About) -> str:
    """CommonMark with tables."""
    templates = environment(autoescape=False)
    templates.filters["cell"] = _cell
    templates.filters["code"] = _code
    return templates.get_template("events.md").render(context(catalogue, about))


def _cell(text: str) -> str:
    """Markdown that does not end its cell."""
    return " ".join(text.split()).replace("|", "\\|")


def _code(text: str) -> str:
    """A text as it stands, in a cell."""
    fence = "``" if "`" in text else "`"
    space = " " if "`" in text else ""
    return f"{fence}{space}{_cell(text)}{space}{fence}"
