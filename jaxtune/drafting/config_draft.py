"""The text of a config file: settings with a reason each, and what may be meant otherwise."""

import json
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jaxtune.run.config import settings_of
from jaxtune.settings import Settings
from jaxtune.settings.dicts import to_dict

_WIDTH = 96  # of a comment, between its margin and the 100 characters of a line

_HEAD = '''"""{title}

{commands}

{body}
"""

from ml_collections import ConfigDict

from jaxtune import default_config


def get_config() -> ConfigDict:
    """What differs from the defaults."""
    config = default_config()
'''


class Line(NamedTuple):
    """A setting of the file.

    Attributes:
      setting: its name, such as `data.path`.
      value: as the file says it.
      why: for a comment above it; empty for none.
      is_set: whether it holds; else it stands in a comment, for a person to choose.
    """

    setting: str
    value: Any
    why: str = ""
    is_set: bool = True


class Other(NamedTuple):
    """Another choice, which stands in comments at the end.

    Attributes:
      told: what was chosen, and why this may be right.
      lines: setting -> value of this choice.
    """

    told: str
    lines: Mapping[str, Any]


class Draft(NamedTuple):
    """A config file before it is written.

    Attributes:
      title: the first line of its docstring.
      commands: that follow it.
      body: the rest of the docstring.
      lines: the settings.
      others: what may be meant otherwise.
    """

    title: str
    commands: tuple[str, ...]
    body: str
    lines: tuple[Line, ...]
    others: tuple[Other, ...] = ()


def settings_in(lines: Sequence[Line]) -> Settings:
    """The settings that lines give.

    Raises:
      UserError: a value that is of another type, or out of range.
    """
    values: dict[str, Any] = {}
    for line in lines:
        if not line.is_set:
            continue
        *parents, last = line.setting.split(".")
        node = values
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = line.value
    return settings_of(values)


def write_draft(draft: Draft) -> str:
    """The text of the file; settings that are at their default are left out."""
    defaults = to_dict(Settings())
    commands = "\n".join(f"    {command}" for command in draft.commands)
    title, body = (_in_docstring(text) for text in (draft.title, draft.body))
    parts = [_HEAD.format(title=title, commands=_in_docstring(commands, 400), body=body)]
    for line in draft.lines:
        if not line.is_set or _default(defaults, line.setting) != line.value:
            parts.append(_comment(_sentence(line.why)) if line.why else "")
            parts.append(_assignment(line.setting, line.value, "" if line.is_set else "# "))
    for other in draft.others:
        parts.append("\n" + _comment(_sentence(other.told)))
        if other.lines:
            parts.append("    # If that is what is meant:\n")
        parts += [_assignment(name, value, "# ") for name, value in other.lines.items()]
    return "".join(parts) + "    return config\n"


def _default(defaults: Mapping[str, Any], setting: str) -> Any:
    node: Any = defaults
    for part in setting.split("."):
        node = node[part]
    return node


def _assignment(setting: str, value: Any, margin: str) -> str:
    """A line of Python; a long tuple has a line for each of its values."""
    line = f"    {margin}config.{setting} = {spell(value)}\n"
    if len(line) <= 101 or not isinstance(value, tuple):
        return line
    items = "".join(f"    {margin}    {spell(item)},\n" for item in value)
    return f"    {margin}config.{setting} = (\n{items}    {margin})\n"


def spell(value: Any) -> str:
    """A value in Python, with double quotes."""
    if isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False)
        return text if text.isprintable() else json.dumps(value)
    if isinstance(value, tuple):
        inner = ", ".join(map(spell, value))
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, float) and 0 < abs(value) < 0.001:
        mantissa, _, exponent = f"{value:e}".partition("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    return repr(value)


def _sentence(text: str) -> str:
    end = "" if text.endswith((".", ":", "?")) else "."
    return f"{text[:1].upper()}{text[1:]}{end}"


def _comment(text: str) -> str:
    lines = textwrap.wrap(safe(text), _WIDTH - 2, break_long_words=False, break_on_hyphens=False)
    return "".join(f"    # {line}\n" for line in lines)


def _in_docstring(text: str, width: int = 99) -> str:
    """A text that ends no docstring, in lines that are not too long."""
    paragraphs = [safe(line).replace("\\", "\\\\") for line in text.split("\n")]
    lines = [
        line
        for paragraph in paragraphs
        for line in textwrap.wrap(
            paragraph, width, break_long_words=False, break_on_hyphens=False, drop_whitespace=False
        )
        or [""]
    ]
    return "\n".join(line.rstrip() for line in lines).replace('"""', "'''")


def safe(text: str) -> str:
    """A text in which whatever it quotes is on one line and steers no terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
