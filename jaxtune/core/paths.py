"""Leaf names such as `bert/encoder/layer/0/output/dense/kernel`, and ordered rules over them."""

import difflib
import re
from collections.abc import Callable, Container, Sequence
from typing import Any

import jax

from jaxtune.core.errors import UserError, nearest

Rules = Sequence[tuple[str, Any]]
"""Ordered (regex, value) pairs. A regex is searched for in the leaf name; the first match wins."""


def leaf_names(tree: Any) -> list[str]:
    """Names of the leaves in the order of `jax.tree.leaves`; holes (None) have no name."""
    return [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


def flatten(tree: Any) -> dict[str, Any]:
    """A nested tree as a flat dict from leaf name to leaf.

    Raises:
      UserError: two leaves have one name.
    """
    flat: dict[str, Any] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = _name(path)
        if name in flat:
            raise UserError(f"two parameters are called {name!r}: expected names of their own.")
        flat[name] = leaf
    return flat


def map_named(function: Callable[[str, Any], Any], tree: Any) -> Any:
    """`function(name, leaf)` of every leaf, in a tree of the same structure; holes stay holes."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: function(_name(path), leaf), tree)


def owner(name: str, known: Container[str]) -> str | None:
    """The longest known name that `name` ends with, as a moment's does with its parameter's."""
    parts = name.split("/")
    ends = ("/".join(parts[i:]) for i in range(len(parts)))
    return next((end for end in ends if end in known), None)


def unflatten(flat: dict[str, Any]) -> dict[str, Any]:
    """Nested dicts from a flat dict; the inverse of `flatten` for trees of dicts."""
    tree: dict[str, Any] = {}
    for name, leaf in flat.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree


def match(rules: Rules, tree: Any) -> Any:
    """Gives every leaf the value of the first rule whose regex is found in its name.

    Args:
      rules: ordered (regex, value) pairs.
      tree: any pytree; only its structure is read.

    Returns:
      A tree of the same structure that holds the values.

    Raises:
      UserError: a regex does not compile, a rule matches no leaf at all (even one that an
        earlier rule took), or a leaf is matched by no rule.
    """
    names = leaf_names(tree)
    compiled = [(compile_pattern(pattern), value) for pattern, value in rules]
    for regex, _ in compiled:
        if not any(regex.search(name) for name in names):
            raise UserError(
                f"the rule {regex.pattern!r} matches none of the {len(names)} parameters."
                f"{nearest_names(regex.pattern, names)} Correct the pattern or drop the rule."
            )
    values = []
    for name in names:
        found = next((value for regex, value in compiled if regex.search(name)), _NOTHING)
        if found is _NOTHING:
            raise UserError(
                f"no rule matches the parameter {name!r}."
                f"{nearest(name, [regex.pattern for regex, _ in compiled])}"
                " Add a rule for it, or a last rule ('.*', value) for all that remain."
            )
        values.append(found)
    return jax.tree.unflatten(jax.tree.structure(tree), values)


_NOTHING = object()


def _name(path: tuple[Any, ...]) -> str:
    """One key path as a name: dict keys, field names and indices joined by slashes."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def nearest_names(pattern: str, names: Sequence[str]) -> str:
    """Up to three leaf names with neighbouring words most like a regex.

    Args:
      pattern: a regex from a person that matches none of `names`.
      names: leaf names.

    Returns:
      ` Nearest: a, b.`, or an empty string where none is like it.
    """
    words = re.sub(r"\\.|[\^$()\[\]{}|?*+]", "", pattern).strip("/")
    count = words.count("/") + 1
    parts: dict[str, str] = {}  # so many neighbouring words of a name -> the first name with them
    for name in names:
        split = name.split("/")
        for start in range(max(1, len(split) - count + 1)):
            parts.setdefault("/".join(split[start : start + count]), name)
    found = difflib.get_close_matches(words, parts, n=3, cutoff=0.5)
    close = dict.fromkeys(parts[part] for part in found)
    return f" Nearest: {', '.join(close)}." if close else ""


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A regex from a person, compiled.

    Raises:
      UserError: it is none.
    """
    try:
        return re.compile(pattern)
    except re.error as error:
        raise UserError(f"the rule {pattern!r} is not a regular expression: {error}.") from None
