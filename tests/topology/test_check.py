"""Each file in broken/ is `sound.yaml` with a few words changed, and the sentences that must be heard of it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from runtime import topology_lock
from runtime.topology import Topology, TopologyError, load
from runtime.topology_check import check

HERE = Path(__file__).parent
SOUND = HERE / "sound.yaml"


def sound(folder: Path) -> Topology:
    """The sound topology in a folder of its own, with its lock."""
    path = folder / "sound.yaml"
    path.write_text(SOUND.read_text())
    topology = load(path)
    topology_lock.accept(topology)
    return topology


def heard(path: Path) -> list[str]:
    try:
        return check(load(path))
    except TopologyError as error:
        return str(error).split("\n")


def test_ours_is_sound() -> None:
    assert check(load()) == []


def test_the_sound_one_is_sound(tmp_path: Path) -> None:
    assert check(sound(tmp_path)) == []


@pytest.mark.parametrize("broken", sorted((HERE / "broken").glob("*.yaml")), ids=lambda path: path.stem)
def test_each_fault_is_a_clear_sentence(broken: Path, tmp_path: Path) -> None:
    fixture: dict[str, Any] = yaml.safe_load(broken.read_text())
    path = sound(tmp_path).path
    text = path.read_text()
    for old, new in fixture["replace"].items():
        assert text.count(old) == 1, f"{old!r} is not once in sound.yaml"
        text = text.replace(old, new)
    path.write_text(text)
    assert heard(path) == fixture["expect"]


def test_without_a_lock_the_check_says_how_to_get_one(tmp_path: Path) -> None:
    topology = sound(tmp_path)
    topology_lock.path_of(topology).unlink()
    assert check(topology) == ["there is no sound.lock: write it with `oms topology lock --accept` and commit it."]
