"""Plots to SVG for a page, whose colours follow the reader's light or dark, and to PNG files."""

import io
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtune.io.atomic import replace_folder
from jaxtune.reporting.parts import Plot

# Okabe and Ito's colours, which people tell apart whatever colours they see, and ink and lines.
# Each is replaced in the page by a variable, of which the page has a light and a dark value.
COLOURS: Mapping[str, str] = {
    **{"ink": "#1b1b1a", "line": "#c9c9c8", "a": "#0072b2", "b": "#d55e00", "c": "#009e73"},
    **{"d": "#cc79a7", "e": "#e69f01"},
}
SERIES = ("a", "b", "c", "d", "e")
HEAT = "#2f6fae"
"""Of the cells of a table of counts, more or less opaque: it is seen on light and dark."""

_SVG, _XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
_STYLE: Any = {
    **{"svg.fonttype": "none", "svg.hashsalt": "jaxtune", "text.parse_math": False},
    **{"font.size": 9.0, "font.family": "sans-serif", "axes.spines.top": False},
    **{"axes.spines.right": False, "axes.edgecolor": COLOURS["ink"], "lines.linewidth": 1.6},
    **{"text.color": COLOURS["ink"], "axes.labelcolor": COLOURS["ink"], "axes.grid": True},
    **{"xtick.color": COLOURS["ink"], "ytick.color": COLOURS["ink"], "grid.linewidth": 0.6},
    **{"grid.color": COLOURS["line"], "legend.frameon": False, "axes.axisbelow": True},
}
_PNG_DPI = 150


def draw(plots: Sequence[Plot], folder: Path) -> dict[str, ET.Element]:
    """Draws all plots; `folder` is made anew with a PNG file of each.

    Returns:
      The `svg` element of each, by the plot's name.
    """
    found, images = {}, {}
    for plot in plots:
        found[plot.name], images[plot.name] = _draw(plot)

    def fill(fresh: Path) -> None:
        for name, image in images.items():
            (fresh / f"{name}.png").write_bytes(image)

    replace_folder(folder, fill)
    return found


def colour(place: int) -> str:
    """Of a line, the first, the second and so on."""
    return COLOURS[SERIES[place % len(SERIES)]]


def _draw(plot: Plot) -> tuple[ET.Element, bytes]:
    import matplotlib
    from matplotlib.figure import Figure  # without pyplot nothing is global

    vector, pixels = io.BytesIO(), io.BytesIO()
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # names in any script
        figure = Figure(figsize=plot.size, layout="constrained")
        plot.paint(figure.add_subplot())
        figure.savefig(pixels, format="png", dpi=_PNG_DPI, metadata={"Software": None})
        figure.set_layout_engine("none")  # all stands where it is to stand
        metadata: Any = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(vector, format="svg", transparent=True, metadata=metadata)
    return _for_page(vector.getvalue(), plot), pixels.getvalue()


def _for_page(content: bytes, plot: Plot) -> ET.Element:
    """An SVG without what a page has no use for: namespaces, sizes, names that others may have."""
    root = ET.fromstring(content)
    used = {name for node in root.iter() for name in _references(node)}
    for node in root.iter():
        node.tag = node.tag.removeprefix(_SVG)
        if node.attrib.get("id") not in used:
            node.attrib.pop("id", None)
        for name, value in list(node.attrib.items()):
            del node.attrib[name]
            node.attrib[name.removeprefix(_XLINK)] = _coloured(value)
    for node in root.findall("metadata"):
        root.remove(node)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {"role": "img", "aria-label": plot.title}
    return root


def _references(node: ET.Element) -> list[str]:
    """The names that an element refers to."""
    link = node.attrib.get(f"{_XLINK}href", node.attrib.get("href", ""))
    found = [link.removeprefix("#")] if link.startswith("#") else []
    return found + [name for value in node.attrib.values() for name in _REFERENCE.findall(value)]


def _coloured(value: str) -> str:
    for name, code in COLOURS.items():
        value = value.replace(code, f"var(--{name})")
    return value
