"""Images that are known from an earlier start are not read."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jaxtune.data.images import checked, decode
from jaxtune.data.images.checked import Digests
from jaxtune.data.images.decode import Source
from jaxtune.data.sources.bad_rows import BadRowsError
from jaxtune.data.sources.rows import read_data
from jaxtune.io import array_cache
from jaxtune.io.json_files import sha256_of
from jaxtune.settings.data import DataSettings
from jaxtune.settings.dicts import from_dict
from jaxtune.tasks.registry import TASKS
from jaxtune.tasks.task import keeping


def draw(path, seed):
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 9, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return Source(str(path), str(path))


@pytest.fixture
def sources(tmp_path):
    return [draw(tmp_path / "images" / f"{i}.png", i) for i in range(20)]


@pytest.fixture
def store(tmp_path):
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


@pytest.fixture
def decoded(monkeypatch):
    """The names of images whose pixels were read."""
    names, read = [], decode._decode

    def count(source, data):
        names.append(source.name)
        return read(source, data)

    monkeypatch.setattr(decode, "_decode", count)
    return names


def expected_of(sources):
    files = (source.data or Path(source.name).read_bytes() for source in sources)
    return [hashlib.sha256(data).digest() for data in files]


def test_a_later_start_reads_no_pixels(sources, store, decoded):
    for _ in range(3):
        assert Digests(store).check_all(sources) == expected_of(sources)
    assert sorted(decoded) == sorted(source.name for source in sources)
    assert Digests(store).check_all(sources[::-3]) == expected_of(sources[::-3])
    assert len(decoded) == 20


def test_what_is_new_or_changed_is_read(sources, store, decoded, tmp_path):
    Digests(store).check_all(sources[:10])
    draw(tmp_path / "images" / "3.png", 99)
    later = os.stat(sources[4].name).st_mtime_ns + 10**9
    os.utime(sources[4].name, ns=(later, later))
    small = sources[5]._replace(max_pixels=8 * 9)
    decoded.clear()
    some = [*sources[:5], small, *sources[6:]]
    assert Digests(store).check_all(some) == expected_of(some)
    own = [sources[i].name for i in (3, 4, 5, *range(10, 20))]
    assert sorted(decoded) == sorted(own)


def test_images_within_tables_are_known_by_their_bytes(sources, store, decoded):
    held = [Source(s.name, "t", Path(s.name).read_bytes()) for s in sources]
    for _ in range(2):
        assert Digests(store).check_all(held) == expected_of(held)
    assert len(decoded) == 20


def test_bad_images_are_refused_each_time_and_the_others_known(sources, store, decoded, tmp_path):
    (tmp_path / "images" / "7.png").write_bytes(b"no image")
    (tmp_path / "images" / "9.png").unlink()
    for _ in range(2):
        with pytest.raises(BadRowsError) as caught:
            Digests(store).check_all(sources)
        assert [*caught.value.rows] == [7, 9]
        assert "7.png" in caught.value.rows[7]
    names = [source.name for source in sources]
    assert sorted(decoded) == sorted([*names[:9], *names[10:], names[7]])


@pytest.mark.parametrize("damage", [b"", b"x" * 100])
def test_a_damaged_or_absent_store_is_made_again(sources, store, decoded, damage):
    Digests(store).check_all(sources)
    (file,) = store.glob("*/digests.bin")
    file.write_bytes(damage)
    assert Digests(store).check_all(sources) == expected_of(sources)
    assert Digests(store).check_all(sources) == expected_of(sources)
    assert len(decoded) == 40
    assert Digests(store / "absent").check_all(sources) == expected_of(sources)
    assert len(decoded) == 60


def test_the_store_takes_48_bytes_an_image(sources, store):
    Digests(store).check_all(sources)
    sizes = [file.stat().st_size for file in store.glob("*/*.bin")]
    assert sum(sizes) == 48 * len(sources)
    arrays, _ = array_cache.load(store, Digests(store)._name)
    assert (np.diff(arrays["keys"][::2].astype(object)) >= 0).all()


def test_the_task_keeps_them(tmp_path, store, decoded, monkeypatch):
    for i in range(12):
        draw(tmp_path / "data" / f"class {i % 2}" / f"{i}.png", i)
    settings = from_dict(DataSettings, {"path": str(tmp_path / "data"), "validation_size": 4.0})
    plain = read_data(settings, TASKS["image_classification"].data.reader)
    assert len(decoded) == 12
    for _ in range(2):
        task = keeping(TASKS["image_classification"], store)
        data = read_data(settings, task.data.reader)
        assert data.splits["train"].inputs == plain.splits["train"].inputs
    assert len(decoded) == 24
    assert data.sha256 == plain.sha256
    found = task.data.read_new(tmp_path / "data")
    assert len(found.inputs) == 12
    assert len(decoded) == 24


def test_files_are_read_once_for_the_digest_of_the_data(sources, store, monkeypatch):
    files, read = [Path(source.name) for source in sources], []
    expected = sha256_of(files)
    monkeypatch.setattr(checked, "sha256_of", lambda files: read.append(0) or sha256_of(files))
    for _ in range(2):
        assert Digests(store).of_files(files) == expected
    assert len(read) == 1
    draw(files[0], 50)
    assert Digests(store).of_files(files) == sha256_of(files) != expected
    assert Digests(store / "absent").of_files(files[:2]) == sha256_of(files[:2])
