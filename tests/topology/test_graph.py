"""The drawings in the docs are today's."""

from pathlib import Path

import pytest

from runtime import topology_graph
from runtime.topology import TopologyError, load

ROOT = Path(__file__).parents[2]


def test_the_drawings_in_the_docs_are_fresh() -> None:
    drawings = topology_graph.drawings(ROOT)
    assert ROOT / "docs" / "architecture.md" in drawings
    stale = [path.name for path in drawings if not topology_graph.fresh(path, load())]
    assert not stale, f"run `oms topology graph --write`: {stale}"


def test_it_shows_every_part_and_only_those() -> None:
    topology = load()
    text = topology_graph.render(topology)
    for name in [*topology.topics, *(process.name for process in topology.processes())]:
        assert f'"{name}"' in text
    arrows = [line.split() for line in text.splitlines() if "-->" in line or "-.->" in line]
    boxes = {line.split("[")[0].split("{")[0].split(">")[0].split("(")[0].strip() for line in text.splitlines()}
    assert {end for arrow in arrows for end in (arrow[0], arrow[2])} <= boxes
    expected = sum(len(p.inputs) + len(p.writes) + len(p.needs) for p in topology.processes())
    assert len(arrows) == expected + 1  # dead.letters, from everyone


def test_writing_renews_what_is_between_the_markers_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(f"# Before\n\n{topology_graph.BEGIN}\nold\n{topology_graph.END}\n\nAfter\n")
    assert not topology_graph.fresh(path, load())
    assert topology_graph.write(path, load())
    assert topology_graph.fresh(path, load())
    assert not topology_graph.write(path, load())
    text = path.read_text()
    assert text.startswith("# Before\n\n")
    assert text.endswith("\n\nAfter\n")
    assert "old" not in text


@pytest.mark.parametrize("text", ["no markers", topology_graph.BEGIN, topology_graph.BEGIN * 2 + topology_graph.END])
def test_a_page_without_a_place_for_it_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "page.md"
    path.write_text(text)
    with pytest.raises(TopologyError, match="needs the lines"):
        topology_graph.write(path, load())
    assert path.read_text() == text
