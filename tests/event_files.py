"""Reads TensorBoard's event files: records with their length before them, each of an Event."""

import struct
from pathlib import Path
from typing import NamedTuple


class Told(NamedTuple):
    """What the files of a folder say: (step, name, value), the steps that begin anew, texts."""

    scalars: list[tuple[int, str, float]]
    begun: list[int]
    texts: dict[str, str]


def read_events(folder: Path) -> Told:
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    told = Told([], [], {})
    for file in sorted(folder.iterdir()):
        data, place = file.read_bytes(), 0
        while place < len(data):
            (size,) = struct.unpack_from("<Q", data, place)
            event = Event.FromString(data[place + 12 : place + 12 + size])
            place += 16 + size
            if event.session_log.status == SessionLog.START:
                told.begun.append(event.step)
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    told.scalars.append((event.step, value.tag, value.simple_value))
                else:
                    told.texts[value.tag] = value.tensor.string_val[0].decode()
    return told
