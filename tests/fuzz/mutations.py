"""Damaged and odd inputs, made from sound ones by a random generator that a seed starts."""

import copy
import json
import random
import re
import struct
import zlib
from typing import Any

NUMBERS = (
    *("0", "-1", "1e999", "-1e999", "NaN", "Infinity", "1e-400", "0.1", "9" * 30, "9" * 400),
    *("2147483648", "-9223372036854775809", "18446744073709551616", "00", "1_0", "0x10", "٣", "²"),
)
PIECES = (
    *(b'"', b"'", b",", b";", b"\t", b"|", b"\r", b"\n", b"\r\n", b"\n\n", b" ", b"#", b"\\", b"="),
    *(b"{", b"}", b"[", b"]", b"null", b"true", b"NaN", b"-", b"_", b"O", b"B-", b"I-", b"\0"),
    *(
        b"-DOCSTART- -X- O O\n",
        b"\\u0000",
        b"\\ud83d",
        b"\xef\xbb\xbf",
        b"\xff\xfe",
        b"\xed\xa0\xbd",
    ),
    *(b"\xed\xa0\xbd", b"\xf0\x9f", b"\x80", b"\x1a", b"\x7f", b"\x85", b"\x0b", b"\x0c", b"\x1c"),
)
UNICODE = (
    *("\u2028", "\u2029", "\x85", "\ufeff", "\u200b", "\u200d", "\u202e", "\u0301" * 40, "\xad"),
    *(
        "\ufffe",
        "\U0010ffff",
        "\ue000",
        "İ",
        "ß",
        "ﬁ",
        "👩‍👩‍👧‍👦",
        "你好",
        "สวัสดี",
        "\u1100\u1161\u11a8",
        "\xa0",
    ),
)
VALUES = (
    *(None, True, False, 0, -1, 1, 2**31, -(2**63), 10**30, 10**400, 0.5, -0.5, 1e308),
    *(float("nan"), float("inf"), "", " ", "a", "0", "-1", "nan", "\0", "\ud83d", "x" * 5000),
    *([], [[]], {}, {"": ""}, [None], [1, "a"], {"a": {"b": []}}, ["a"] * 300),
)

_DEPTH = 60  # of what is nested: within what readers admit, or just beyond


def mutate_bytes(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """One to four changes of single bytes, pieces or numbers."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        data = rng.choice(_CHANGES)(rng, data, others)
    return data


def mutate_json(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """Changes the value that a text of JSON holds; one in three times the text itself."""
    if rng.random() < 1 / 3:
        return mutate_bytes(rng, data, others)
    return dumps(mutate_value(rng, json.loads(data)))


def mutate_lines(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """As `mutate_json`, of one line or several."""
    if rng.random() < 1 / 3:
        return mutate_bytes(rng, data, others)
    lines = data.splitlines()
    for _ in range(rng.choice((1, 1, 3))):
        i = rng.randrange(len(lines))
        lines[i] = dumps(mutate_value(rng, json.loads(lines[i])))
    return b"\n".join(lines) + b"\n"


def mutate_safetensors(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """Changes the header's value; one in three times the bytes."""
    if rng.random() < 1 / 3:
        return mutate_bytes(rng, data, others)
    (size,) = struct.unpack("<Q", data[:8])
    header = dumps(mutate_value(rng, json.loads(data[8 : 8 + size])))
    return struct.pack("<Q", len(header)) + header + data[8 + size :]


def mutate_image(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    """Changes bytes; those of a PNG get right checksums again, or none would be read further."""
    data = mutate_bytes(rng, data, others)
    if not data.startswith(b"\x89PNG\r\n\x1a\n") or rng.random() < 0.2:
        return data
    parts, start = [data[:8]], 8
    while start + 12 <= len(data):
        (size,) = struct.unpack(">I", data[start : start + 4])
        body = data[start + 4 : start + 8 + size]
        parts.append(data[start : start + 4] + body + struct.pack(">I", zlib.crc32(body)))
        start += 12 + size
    return b"".join([*parts, data[start:]])


def mutate_value(rng: random.Random, value: Any) -> Any:
    """A value of JSON in which one to three nodes are others, gone, renamed, swapped or nested."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 2, 3))):
        nodes = [*_nodes(value)] if isinstance(value, dict | list) else []
        if not nodes:
            return rng.choice(VALUES)
        parent, key = rng.choice(nodes)
        _change(rng, parent, key, nodes)
    return value if rng.random() > 0.02 else _odd(rng, value)


def dumps(value: Any) -> bytes:
    """JSON text in UTF-8; halves of surrogate pairs stay escaped."""
    text = json.dumps(value, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace")


def _change(rng: random.Random, parent: Any, key: Any, nodes: list[tuple[Any, Any]]) -> None:
    kind = rng.randrange(6)
    if kind == 0:
        del parent[key]
    elif kind == 1 and isinstance(parent, dict):
        parent[rng.choice(("", "0", "a", *UNICODE, f"{key} "))] = parent.pop(key)
    elif kind == 2:
        other, place = rng.choice(nodes)
        parent[key] = copy.deepcopy(other[place])
    elif kind == 3 and isinstance(parent, list):
        parent[key:key] = [copy.deepcopy(parent[key]) for _ in range(rng.choice((1, 2, 300)))]
    else:
        parent[key] = _odd(rng, parent[key])


def _odd(rng: random.Random, value: Any) -> Any:
    """Another value in the place of one: of another type, or like it and out of range."""
    kind = rng.randrange(6)
    if kind == 0:
        for _ in range(rng.randint(1, _DEPTH)):
            value = [value] if rng.random() < 0.5 else {"a": value}
        return value
    if kind == 1 and isinstance(value, int | float):
        return rng.choice((-value, value * 10**6, value + 1, value == 1, str(value), [value]))
    if kind == 1 and isinstance(value, str):
        place = rng.randint(0, len(value))
        return value[:place] + rng.choice(UNICODE) + value[place:]
    if kind == 2:
        return str(value)
    return copy.deepcopy(rng.choice(VALUES))


def _nodes(value: Any):
    """(container, key or index) of every node but the root."""
    stack = [value]
    while stack:
        parent = stack.pop()
        keys = parent if isinstance(parent, dict) else range(len(parent))
        for key in list(keys):
            yield parent, key
            if isinstance(parent[key], dict | list):
                stack.append(parent[key])


def _span(rng: random.Random, data: bytes) -> tuple[int, int]:
    start = rng.randint(0, len(data))
    return start, min(len(data), start + rng.choice((1, 4, 16, 64, 1024)))


def _flip(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 4, 16)) if data else 0):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _cut_off(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    return data[: rng.randint(0, len(data))]


def _cut_out(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    start, stop = _span(rng, data)
    return data[:start] + data[stop:]


def _repeat(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    start, stop = _span(rng, data)
    times = min(rng.choice((2, 20, 2000)), 1 + 8192 // max(1, stop - start))
    return data[:start] + data[start:stop] * times + data[stop:]


def _splice(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    other = rng.choice(others)
    start, stop = _span(rng, other)
    place, end = _span(rng, data)
    return data[:place] + other[start:stop] + data[rng.choice((place, end)) :]


def _insert(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    place = rng.randint(0, len(data))
    piece = rng.choice((*PIECES, *(text.encode() for text in UNICODE)))
    return data[:place] + piece + data[place + rng.choice((0, 0, len(piece))) :]


def _number(rng: random.Random, data: bytes, others: list[bytes]) -> bytes:
    found = [*re.finditer(rb"-?\d+(\.\d+)?", data)]
    if not found:
        return _insert(rng, data, others)
    match = rng.choice(found)
    return data[: match.start()] + rng.choice(NUMBERS).encode() + data[match.end() :]


_CHANGES = (_flip, _flip, _cut_off, _cut_out, _repeat, _splice, _insert, _insert, _number)
