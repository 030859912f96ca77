"""How attention is computed, by the shape of a row, and what that costs."""

from typing import NamedTuple

from jaxtune.core.counting import share_counted

LONG = 512
"""Tokens of a row from which on its scores are no longer computed all at once."""

_IN_BLOCKS = 0.5  # of the cost of a score, where rows are attended to block by block
_SLACK = 256  # keys beside those of its example that a token is computed with in a packed row


def band(window: int) -> int:
    """Queries of a block that is computed with its surroundings, for tokens that see so far."""
    return max(window, 64)


def choose_path(queries: int, keys: int, window: int | None = None, wanted: str = "auto") -> str:
    """How attention is computed, by the shape of the scores of a row.

    Args:
      queries: of a row; where this or the next is no number, as in an export for any length, all
        scores are computed at once, and so they are where operations are counted.
      keys: of a row.
      window: how far tokens see, where what is near by position is near in the row; else None.
      wanted: `fused`, or `auto` for any other.

    Returns:
      `xla`, all scores at once; `banded`, of the blocks next to each; `blockwise`; or, where it is
      wanted and more than one query asks, `fused`.
    """
    known = isinstance(queries, int) and isinstance(keys, int)
    if not known or share_counted() is not None:
        return "xla"
    if wanted == "fused" and queries > 1:
        return "fused"
    if queries * keys < LONG**2:
        return "xla"
    return "banded" if window is not None and 3 * band(window) <= keys else "blockwise"


class AttentionCost(NamedTuple):
    """Costs are in those of a token by itself: its products but for attention.

    Attributes:
      of_key: of a token for each key that it is computed with.
      window: how far the tokens of local layers see; None where there are none.
      local: the share of the layers that are local.
    """

    of_key: float = 1 / 512
    window: int | None = None
    local: float = 0.0

    def of_token(self, length: int, own: float) -> float:
        """What a token costs, attention counted.

        No long row is taken to be cheaper than the longest short one, so that texts which fit short
        rows stay in them.

        Args:
          length: of its row.
          own: tokens of its example, on the average over tokens.
        """
        if choose_path(length, length) == "xla":
            return 1 + self.of_key * length
        keys = min(own + _SLACK, length)
        in_blocks = (1 - self.local) * _IN_BLOCKS * keys
        if choose_path(length, length, self.window) == "banded":
            in_band = self.local * min(3 * band(self.window or 0), length)
        else:
            in_band = self.local * _IN_BLOCKS * keys
        return 1 + self.of_key * max(in_blocks + in_band, LONG)


USUAL = AttentionCost()
"""Of a model 384 wide with heads of 32 features, such as MiniLM."""
