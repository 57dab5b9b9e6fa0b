"""The lock follows what is accepted, remembers generations, and its changelog names are quixstreams' own."""

from pathlib import Path

import pytest

from runtime import topology_lock
from runtime.topology import TopologyError, load
from tests.topology.test_check import sound


def test_accepting_is_stable_and_what_was_accepted_is_right(tmp_path: Path) -> None:
    topology = sound(tmp_path)
    first = topology_lock.path_of(topology).read_text()
    topology_lock.accept(topology)
    assert topology_lock.path_of(topology).read_text() == first
    assert topology_lock.differences(topology) == []


def test_ours_is_as_accepting_would_write_it(tmp_path: Path) -> None:
    ours = load()
    copy = tmp_path / "topology.yaml"
    copy.write_text(ours.path.read_text())
    copy.with_suffix(".lock").write_text(topology_lock.path_of(ours).read_text())
    topology_lock.accept(load(copy))
    assert copy.with_suffix(".lock").read_text() == topology_lock.path_of(ours).read_text()


def test_a_generation_grows_with_the_key_of_a_topic_and_with_the_partitions_of_all(tmp_path: Path) -> None:
    path = sound(tmp_path).path

    def accepted(old: str, new: str) -> topology_lock.Lock:
        path.write_text(path.read_text().replace(old, new))
        topology = load(path)
        topology_lock.accept(topology)
        lock = topology_lock.read(topology)
        assert lock is not None
        return lock

    lock = accepted("key: sku", "key: product_id")
    assert lock.topics["catalog.products"].generation == 2
    assert lock.topics["order.events"].generation == 1
    assert lock.partitions.generation == 1
    lock = accepted("production: 8}\n\ntopics", "production: 16}\n\ntopics")
    assert lock.partitions.generation == 2
    assert lock.topics["catalog.products"].generation == 3
    assert lock.topics["order.events"].generation == 2


@pytest.mark.parametrize("text", ["topics: {}\n", "[", "", "partitions: {generation: one}\n"])
def test_a_lock_that_is_none_is_not_taken_for_an_empty_one(tmp_path: Path, text: str) -> None:
    topology = sound(tmp_path)
    topology_lock.path_of(topology).write_text(text)
    with pytest.raises(TopologyError, match=r"sound.lock is not as `oms topology lock --accept` writes it"):
        topology_lock.differences(topology)


def test_a_changelogs_name_does_not_depend_on_the_order_of_the_inputs() -> None:
    placement = load().processors["placement"]
    turned = placement.model_copy(update={"inputs": placement.inputs[::-1]})
    assert topology_lock.changelog_name(turned) == placement.changelog
