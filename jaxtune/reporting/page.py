"""Sections to one HTML file that needs no network, runs no script, and has no text as markup.

The page is a tree of elements, so texts are escaped wherever they stand, as its library does it.
"""

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from importlib import resources

from jaxtune.reporting.parts import Example, Plot, Section, Table

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What a browser may load: nothing but the page's own styles and images."""

_CUT = 400  # characters of a text that are shown before it is unfolded
_WIDE = 5.0  # inches from which a figure has a line for itself
_UNSHOWN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")

Child = ET.Element | str


def render(
    title: str, lead: str, sections: Sequence[Section], drawn: Mapping[str, ET.Element]
) -> str:
    """The whole page.

    Args:
      title: its heading.
      lead: a line below that.
      sections: in order.
      drawn: figures by their name; those that are missing are left out.
    """
    style = resources.files("jaxtune.reporting").joinpath("page.css").read_text("utf-8")
    head = _tag(
        "head",
        _tag("meta", charset="utf-8"),
        _tag("meta", **{"http-equiv": "Content-Security-Policy", "content": _POLICY}),
        _tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        _tag("meta", name="referrer", content="no-referrer"),
        _tag("title", title),
        _tag("style", style),
    )
    names = [section.title for section in sections]
    links = [_tag("a", name, href=f"#{_anchor(name)}") for name in names]
    body = _tag(
        "body",
        _tag("h1", title),
        _tag("p", lead, **{"class": "lead"}),
        _tag("nav", *links),
        *(_section(section, drawn) for section in sections),
    )
    page = ET.tostring(_tag("html", head, body, lang="en"), encoding="unicode", method="html")
    return f"<!doctype html>\n{page}\n"


def _section(section: Section, drawn: Mapping[str, ET.Element]) -> ET.Element:
    figures = [_figure(plot, drawn[plot.name]) for plot in section.plots if plot.name in drawn]
    return _tag(
        "section",
        _tag("h2", section.title, id=_anchor(section.title)),
        *(_tag("p", note, **{"class": "note"}) for note in section.notes),
        *([_tag("div", *figures, **{"class": "plots"})] if figures else []),
        *(_table(table) for table in section.tables if table.rows),
        *(_example(example) for example in section.examples),
    )


def _figure(plot: Plot, svg: ET.Element) -> ET.Element:
    caption = _tag("figcaption", plot.title)
    return _tag("figure", svg, caption, **({"class": "wide"} if plot.size[0] > _WIDE else {}))


def _table(table: Table) -> ET.Element:
    def row(cells: Sequence[str], kind: str) -> ET.Element:
        words = [{"class": "w"} if i < table.words else {} for i in range(len(cells))]
        pairs = zip(cells, words, strict=True)
        return _tag("tr", *(_tag(kind, cell, **more) for cell, more in pairs))

    header = [_tag("thead", row(table.header, "th"))] if any(table.header) else []
    body = _tag("tbody", *(row(cells, "td") for cells in table.rows))
    found = _tag("div", _tag("table", *header, body), **{"class": "scroll"})
    if table.folded:
        return _tag("details", _tag("summary", table.title or "Table"), found)
    return _tag("div", *([_tag("h3", table.title)] if table.title else []), found)


def _example(example: Example) -> ET.Element:
    image = []
    if example.image:
        source = f"data:image/png;base64,{example.image}"
        image = [_tag("img", src=source, alt=example.title)]
    facts = [
        _tag(kind, text)
        for fact in example.facts
        for kind, text in zip(("dt", "dd"), fact, strict=True)
    ]
    return _tag(
        "article",
        *image,
        _tag("h3", example.title),
        _tag("dl", *facts),
        *(part for pair in example.texts for part in _text(*pair, len(example.texts) > 1)),
        **{"class": "example"},
    )


def _text(name: str, text: str, named: bool) -> list[ET.Element]:
    """A text, after its name where there are several; of a long one its beginning, to unfold."""
    shown = {"class": "text", "dir": "auto", "title": name}
    label = [_tag("p", name, **{"class": "name"})] if named else []
    if len(text) <= _CUT:
        return [*label, _tag("p", text, **shown)]
    more = _tag("a", f"all {len(text):,} characters")
    summary = _tag("summary", _tag("span", f"{text[:_CUT]}… ", dir="auto"), more)
    return [*label, _tag("details", summary, _tag("p", text, **shown))]


def _tag(kind: str, /, *children: Child, **attributes: str) -> ET.Element:
    """An element; what no page may hold becomes a mark in its place."""
    element = ET.Element(kind, {key: _shown(value) for key, value in attributes.items()})
    last = None
    for child in children:
        if isinstance(child, str):
            text = _shown(child)
            if last is None:
                element.text = (element.text or "") + text
            else:
                last.tail = (last.tail or "") + text
        else:
            element.append(child)
            last = child
    return element


def _shown(text: str) -> str:
    return _UNSHOWN.sub("�", text)


def _anchor(title: str) -> str:
    return re.sub(r"\W+", "-", title.lower())
