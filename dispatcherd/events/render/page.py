"""The catalogue as one page of HTML: searchable, printable, without network and without a build.

Invariant: style and script are in the page, and nothing else is loaded: a policy in the page
forbids it. What a catalogue says is text and Markdown, never HTML. Leaves out: the looks
(templates/page.*).
"""

from __future__ import annotations

from importlib.resources import files

from markdown_it import MarkdownIt
from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name

from dispatcherd.events.catalogue import Catalogue
from dispatcherd.events.render.about import About
from dispatcherd.events.render.view import context, environment

_formatter = HtmlFormatter(nowrap=True)
_markdown = MarkdownIt("commonmark", {"html": False})


def page(catalogue: Catalogue, about: About) -> str:
    """HTML 5."""
    templates = environment(autoescape=True)
    templates.filters["block"] = _block
    templates.filters["line"] = _line
    templates.filters["code"] = _code
    templates.filters["place"] = _place
    folder = files("dispatcherd.events.render") / "templates"
    # Neither holds anything of the catalogue.
    style, script = (Markup((folder / name).read_text("utf-8")) for name in ("page.css", "page.js"))
    shown = context(catalogue, about)
    return templates.get_template("page.html").render(shown, style=style, script=script)


def _block(text: str) -> Markup:
    return Markup(_markdown.render(text))


def _line(text: str) -> Markup:
    return Markup(_markdown.renderInline(" ".join(text.split())))


def _code(text: str, language: str) -> Markup:
    return Markup(highlight(text, get_lexer_by_name(language), _formatter).rstrip())


def _place(name: str) -> tuple[str, str]:
    """What contains a field, and its own name."""
    head, dot, own = name.rpartition(".")
    return head + dot, own
