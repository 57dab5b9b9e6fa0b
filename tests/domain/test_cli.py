"""The command line without a stack, and what it knows of one."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import jwt
import pytest

from runtime import stack
from runtime.errors import UserError
from runtime.stack import Stack


def oms(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "runtime", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **environment},
    )


def test_help_names_the_commands_and_imports_nothing_heavy() -> None:
    done = oms("--help")
    assert done.returncode == 0
    for command in (
        "up",
        "down",
        "status",
        "run",
        "topology",
        "token",
        "kpi",
        "sql",
        "dlq",
        "simulate",
        "demo",
        "bench",
    ):
        assert f"│ {command} " in done.stdout
    heavy = "chdb clickhouse_connect confluent_kafka fastapi fastavro numpy pydantic quixstreams structlog"
    code = f"import sys, runtime.cli; print([name for name in {heavy.split()!r} if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


@pytest.mark.parametrize("command", ["dlq", "simulate", "demo", "bench"])
def test_commands_of_other_modules_explain_themselves(command: str) -> None:
    done = oms(command, "--help")
    assert done.returncode == 0
    assert f"Usage: oms {command}" in done.stdout


def test_token(tmp_path: Path) -> None:
    (customer,) = oms("token", "--customer", "42", "--data-dir", str(tmp_path)).stdout.split()
    (admin,) = oms("token", "--admin", "clerk", "--data-dir", str(tmp_path)).stdout.split()
    claims = [jwt.decode(token, options={"verify_signature": False}) for token in (customer, admin)]
    assert [claim["sub"] for claim in claims] == ["42", "clerk"]
    assert [claim.get("scope") for claim in claims] == [None, "orders:admin"]
    neither = oms("token", "--data-dir", str(tmp_path))
    assert (neither.returncode, neither.stderr) == (1, "No token: name a customer or a member of staff.\n")


def test_nothing_runs_here(tmp_path: Path) -> None:
    status = oms("status", "--data-dir", str(tmp_path))
    sentence = f"Nothing runs with its data in {tmp_path}: `oms up` starts the stack.\n"
    assert (status.returncode, status.stdout, status.stderr) == (1, "", sentence)
    down = oms("down", "--data-dir", str(tmp_path))
    assert (down.returncode, down.stderr) == (0, "")


def test_an_unknown_process_is_one_sentence(tmp_path: Path) -> None:
    done = oms("run", "nobody", OMS_DATA_DIR=str(tmp_path))
    assert done.returncode == 78
    (sentence,) = done.stderr.splitlines()
    assert "nobody" in sentence
    assert "placement" in sentence


def test_a_parameter_without_a_value_is_one_sentence() -> None:
    done = oms("sql", "SELECT {a:String}", "--param", "a")
    assert done.returncode == 1
    assert done.stderr.strip() == "--param is NAME=VALUE, not a."


def test_a_data_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for detach in ((), ("--detach",)):
        done = oms("up", *detach, "--port", "0", "--data-dir", str(tmp_path / "file" / "data"))
        assert done.returncode == 1
        (sentence,) = done.stderr.splitlines()
        assert sentence.endswith("can't be written to (Not a directory): choose another with --data-dir.")


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "The disk is full" in str(stack.unusable(tmp_path, OSError(errno.ENOSPC, "No space left on device")))
    monkeypatch.setattr(stack, "_FREE_BYTES", 10**18)
    with (
        pytest.raises(UserError, match=r"Only \d+ MB are free in .* free some space, or choose"),
        stack.locked(tmp_path),
    ):
        pass


def test_settings_come_from_the_stack_unless_the_environment_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = {"OMS_KAFKA_BOOTSTRAP": "127.0.0.1:21000", "OMS_GATEWAY_PORT": "21001", "OMS_PAYMENT_URL": "http://a:1"}
    stack.write_stack(tmp_path, Stack(os.getpid(), 0.0, "http://127.0.0.1:21001", {"gateway": 21001}, env))
    monkeypatch.setenv("OMS_PAYMENT_URL", "http://b:2")
    found = stack.stack_settings(tmp_path)
    assert (found.kafka_bootstrap, found.gateway_port) == ("127.0.0.1:21000", 21001)
    assert found.payment_url == "http://b:2"
    assert found.data_dir == tmp_path
    assert stack.stack_settings(tmp_path / "other").kafka_bootstrap == "127.0.0.1:9092"


def test_a_reused_pid_is_not_the_supervisor() -> None:
    assert Stack(os.getpid(), 0.0, "", {}, {}).process() is None


def test_two_stacks_get_different_ports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMS_PAYMENT_URL", "http://elsewhere:1")
    wanted = set(stack.SERVICES) - {"clickhouse-replica"}
    with stack.reserved_ports(0, wanted) as one, stack.reserved_ports(0, wanted) as two:
        assert set(one) == set(two) == {"kafka", "clickhouse", "gateway", "logistics-partners"}
        assert len({*one.values(), *two.values()}) == 8


def test_the_gateways_port_is_asked_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(UserError, match=f"Port {port} is taken"), stack.reserved_ports(port, ()):
            pass
    with stack.reserved_ports(port, ()) as ports:
        assert ports["gateway"] == port
