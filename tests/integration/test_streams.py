"""What we switch in quixstreams, still switches what it did when the version was pinned (decision 0003)."""

from __future__ import annotations

import inspect

from confluent_kafka import TopicPartition
from quixstreams import Application

from runtime import dead_letters, kafka, streams, topology
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


def test_where_a_topic_begins_and_ends_is_not_asked_behind_a_fetch(stack: Stack) -> None:
    """Decision 0003: on the connection that is read from, each question waits for as long as a fetch does."""
    everything = topology.load()
    spec = everything.processors["placement"]
    settings = stack.settings.model_copy(update={"slot": 9})
    runner = streams.Runner("placement", streams.load_handler(settings, spec), [*spec.outputs, dead_letters.TOPIC])
    app = streams.application(settings, everything, "placement", runner)
    at = TopicPartition("order.events", 0)
    known = kafka.ends(kafka.admin(settings), [at])
    low, high = app._consumer.get_watermark_offsets(at, timeout=20)
    assert (low, high >= known["order.events", 0]) == (0, True)
    assert app._consumer._inner_consumer is None, "the consumer itself was not asked"
    assert "self._consumer.get_watermark_offsets(" in inspect.getsource(Application), "the library asks like this"


def test_the_pace_is_told_of_each_message_and_looked_at_after_it() -> None:
    source = inspect.getsource(Application)
    assert "self._on_message_processed(topic_name, partition, offset)" in source
    assert "processing_context.commit_checkpoint()" in source


def _bare(stack: Stack) -> Application:
    return Application(
        broker_address=stack.settings.kafka_bootstrap,
        consumer_group="bare",
        auto_create_topics=False,
        state_dir=stack.data_dir / "bare",
        use_changelog_topics=False,
        loglevel=None,
    )
