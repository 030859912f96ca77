"""Every setting for a person to read: what is typed, its type, its default and its meaning."""

import shutil
import textwrap

from jaxtune.core.errors import UserError, nearest
from jaxtune.run.config_reference import describe

_WIDEST = 100


def settings_table(section: str = "") -> str:
    """The settings with their defaults, two lines or more each.

    Args:
      section: such as `tuning`, `data.augmentation` or `seed`; empty for all settings.

    Raises:
      UserError: there is no such section.
    """
    settings = describe()
    wanted = [s for s in settings if f"{s.name}.".startswith(f"{section}." if section else "")]
    if not wanted:
        sections = dict.fromkeys(s.name.partition(".")[0] for s in settings)
        raise UserError(
            f"--help.{section}: there are no such settings. There are {', '.join(sections)}."
            f"{nearest(section, sections | dict.fromkeys(s.name for s in settings))}"
        )
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    lines = ["settings, with their defaults (None: not set):"]
    for setting in wanted:
        text = f"{setting.kind}: {setting.meaning}"
        lines.append(f"  --config.{setting.name}={setting.default}")
        lines += textwrap.wrap(
            text,
            width,
            initial_indent=" " * 6,
            subsequent_indent=" " * 6,
            break_long_words=False,
            break_on_hyphens=False,
        )
    return "\n".join(lines)
