"""What we switch in quixstreams, still switches what it did when the version was pinned (decision 0003)."""

from __future__ import annotations

import inspect

from quixstreams import Application

from runtime import dead_letters, streams, topology
from tests.support.stack import Stack


def test_concatenated_inputs_are_not_aligned_by_time(stack: Stack) -> None:
    """Rule 2: aligned, one open transaction on any input would stall the process."""
    everything = topology.load()
    spec = everything.processors["placement"]
    settings = stack.settings.model_copy(update={"slot": 9})
    runner = streams.Runner("placement", streams.load_handler(settings, spec), [*spec.outputs, dead_letters.TOPIC])
    app = streams.application(settings, everything, "placement", runner)
    assert app._dataframe_registry.requires_time_alignment is False
    streams.wire(other := _bare(stack), spec, runner)
    assert other._dataframe_registry.requires_time_alignment is True, "concat asks for it, so our switch is needed"
    assert "buffered=self._dataframe_registry.requires_time_alignment" in inspect.getsource(Application)


def test_the_changelog_is_named_as_topology_says(stack: Stack) -> None:
    """State is found again by this name."""
    everything = topology.load()
    for name, spec in everything.processors.items():
        settings = stack.settings.model_copy(update={"slot": 9})
        runner = streams.Runner(name, streams.load_handler(settings, spec), [*spec.outputs, dead_letters.TOPIC])
        app = streams.application(settings, everything, name, runner)
        assert [topic.name for topic in app._topic_manager.changelog_topics_list] == [spec.changelog]


def _bare(stack: Stack) -> Application:
    return Application(
        broker_address=stack.settings.kafka_bootstrap,
        consumer_group="bare",
        auto_create_topics=False,
        state_dir=stack.data_dir / "bare",
        use_changelog_topics=False,
        loglevel=None,
    )
