"""What is found out about files as people have them."""

import pytest
from look_shapes import SHAPES

from jaxtune.data.look.roles import Hints
from jaxtune.run.config_draft import settings_in
from jaxtune.run.first_config import first_config, look
from jaxtune.settings.dicts import to_dict


@pytest.mark.parametrize("name", SHAPES)
def test_files_as_people_have_them(name, tmp_path, monkeypatch):
    shape = SHAPES[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / shape.file).write_bytes(shape.content)
    seen = look(shape.file, Hints())
    found = first_config(seen, None, False)
    settings = to_dict(settings_in(found.lines))
    assert (found.guess.task, found.guess.texts, found.guess.labels) == (
        shape.task,
        shape.texts,
        shape.labels,
    )
    assert settings["task"] == shape.task
    assert bool(found.others) == shape.doubted, found.others
    assert {key: settings["data"][key] for key in shape.settings} == shape.settings
