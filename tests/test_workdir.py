import dataclasses

import pytest

from jaxtune.core.errors import UserError
from jaxtune.run.workdir import check_workdir, claim_workdir
from jaxtune.settings import ModelSettings, Settings
from jaxtune.settings.data import DataSettings
from jaxtune.settings.dicts import from_dict, to_dict

ASKED = Settings(model=ModelSettings(path="m"), data=from_dict(DataSettings, {"path": "d"}))
RESOLVED = dataclasses.replace(
    ASKED,
    model=ModelSettings(path="m", sha256="1" * 64),
    data=from_dict(DataSettings, {"path": "d", "sha256": "2" * 64}),
)


def test_the_same_config_goes_on_before_and_after_the_digests_are_known(tmp_path):
    check_workdir(tmp_path / "run", ASKED)
    claim_workdir(tmp_path / "run", RESOLVED)
    before = (tmp_path / "run" / "config.json").read_bytes()
    check_workdir(tmp_path / "run", ASKED)
    claim_workdir(tmp_path / "run", RESOLVED)
    assert (tmp_path / "run" / "config.json").read_bytes() == before


def test_another_config_is_refused_before_anything_is_loaded(tmp_path):
    claim_workdir(tmp_path, RESOLVED)
    other = dataclasses.replace(ASKED, seed=3)
    with pytest.raises(UserError, match="seed was 0, is 3"):
        check_workdir(tmp_path, other)


@pytest.mark.parametrize("section", ["model", "data"])
def test_other_files_under_the_same_name_are_refused(tmp_path, section):
    claim_workdir(tmp_path, RESOLVED)
    resolved = getattr(RESOLVED, section)
    changed = from_dict(type(resolved), to_dict(resolved) | {"sha256": "3" * 64})
    with pytest.raises(UserError, match=rf"{section}\.sha256 was '.*', is '333"):
        claim_workdir(tmp_path, dataclasses.replace(RESOLVED, **{section: changed}))
