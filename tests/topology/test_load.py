"""Reading topology.yaml: where it is found, what is typed, and errors that say where."""

from pathlib import Path

import pytest

from runtime import topology
from runtime.topology import TopologyError, load

ROOT = Path(__file__).parents[2]


def test_times_and_defaults_are_typed() -> None:
    topics = load().topics
    assert topics["order.commands"].retention == 7 * 86_400
    assert topics["order.replies"].retention == 3600
    assert topics["order.events"].retention == 7 * 366 * 86_400
    assert topics["order.states"].retention is None
    assert topics["order.events"].key == "order_id"
    assert topics["inventory.commands"].key == "sku#pool"


def test_what_the_processes_ask() -> None:
    found = load()
    assert found.group("placement") == "placement"
    assert found.instances("order", "production") == 4
    assert found.partitions("embedded") == 4
    assert found.changelog("order") in found.changelog_topics()
    assert len(found.changelog_topics()) == len(found.processors), "ours are all stateful"
    assert found.longest_retention() == 7 * 366 * 86_400
    assert found.process("timers").writes[-1] == "timer.ticks"


def test_an_unknown_process_is_answered_with_those_there_are() -> None:
    with pytest.raises(TopologyError, match=r"no process 'ordr'; it has order, inventory, .*, gateway"):
        load().process("ordr")
    with pytest.raises(TopologyError, match="gives views no changelog"):
        load().changelog("views")


def test_it_lies_in_a_checkouts_root_or_beside_the_module_in_a_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert topology.default_path() == ROOT / "topology.yaml"
    installed = tmp_path / "site-packages" / "runtime"
    installed.mkdir(parents=True)
    (installed / "topology.yaml").write_text((ROOT / "topology.yaml").read_text())
    monkeypatch.setattr(topology, "_HERE", installed)
    assert load().path == installed / "topology.yaml"


def test_a_file_that_is_not_there_and_one_that_is_no_mapping(tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match=r"nowhere.yaml can't be read: No such file"):
        load(tmp_path / "nowhere.yaml")
    for text in ("", "- topics\n", "topics\n"):
        (tmp_path / "odd.yaml").write_text(text)
        with pytest.raises(TopologyError, match=r"odd.yaml:1: the file is not a mapping"):
            load(tmp_path / "odd.yaml")


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "topology.yaml"
    text = (
        (ROOT / "topology.yaml").read_text().replace("retention: 7y", "retention: long").replace("guarantee", "promise")
    )
    path.write_text(text)
    with pytest.raises(TopologyError) as caught:
        load(path)
    lines = str(caught.value).split("\n")
    assert len(lines) > 10
    assert all(line.startswith("topology.yaml:") and line.endswith(".") for line in lines)
