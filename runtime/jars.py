"""Jars from Maven, by exact coordinates and each pinned by its SHA-256, in a cache folder that every checkout shares.

A lock file has one jar a line: `group:artifact:version[:classifier] sha256`. It names no host.
"""

import errno
import fcntl
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests
from jgo.maven import MavenContext

from runtime.errors import UserError

Progress = Callable[[str, int, int], None]
"""Called with (jar name, jars done, jars in all) after each jar that was fetched."""

_DOWNLOADS = 4
_ATTEMPTS = 3
_RETRY_SECONDS = 1.0


@dataclass(frozen=True)
class _Jar:
    coordinate: str
    sha256: str

    @property
    def file_name(self) -> str:
        return "-".join(self.coordinate.split(":")[1:]) + ".jar"


def cache_dir() -> Path:
    """The folder shared by all checkouts: `OMS_CACHE_DIR`, default `~/.cache/oms`."""
    return Path(os.environ.get("OMS_CACHE_DIR") or Path.home() / ".cache" / "oms").absolute()


def folder() -> Path:
    """Where the jars are."""
    return cache_dir() / "jars"


def fetch(
    lock: Path, progress: Progress | None = None, *, prepare: Callable[[list[Path]], None] | None = None
) -> list[Path]:
    """The jars of a lock file, in its order, downloaded and verified on the first call; then `prepare` is called once.

    Once all of them are there, a stamp named by the lock's hash makes this a matter of a few `stat` calls.

    Raises:
        UserError: no network, a checksum that differs from the lock's, no space, or no such artifact.
    """
    wanted = [_Jar(*line.split()) for line in lock.read_text().splitlines() if line]
    paths = [folder() / jar.file_name for jar in wanted]
    stamp = folder() / f"{sha256(lock)}.complete"
    if stamp.exists() and all(path.exists() for path in paths):
        return paths
    try:
        folder().mkdir(parents=True, exist_ok=True)
        with _exclusive(folder() / ".lock"):
            _fetch_missing(wanted, folder(), progress)
            if prepare is not None:
                prepare(paths)
            stamp.touch()
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise UserError(f"No space left in {folder()} for the jars of {lock.name}.") from error
        raise UserError(f"The jars of {lock.name} can't be kept in {folder()}: {error}.") from error
    return paths


def sha256(path: Path) -> str:
    """Of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fetch_missing(jars: list[_Jar], folder: Path, progress: Progress | None) -> None:
    missing = [jar for jar in jars if not _is_intact(folder / jar.file_name, jar.sha256)]
    done = len(jars) - len(missing)
    with (
        tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as partial,
        ThreadPoolExecutor(_DOWNLOADS) as pool,
    ):
        futures = {pool.submit(_download, jar, Path(partial), folder): jar for jar in missing}
        try:
            for future in as_completed(futures):
                future.result()
                done += 1
                if progress is not None:
                    progress(futures[future].file_name, done, len(jars))
        finally:
            pool.shutdown(cancel_futures=True)


def _download(jar: _Jar, partial: Path, folder: Path) -> None:
    """Fetch one jar aside, verify it, and only then move it to its place."""
    for attempt in range(1, _ATTEMPTS + 1):
        repository = partial / f"{jar.file_name}.{attempt}"
        artifact = MavenContext(repo_cache=repository).create_dependency(jar.coordinate).artifact
        try:
            path = artifact.resolve()
        except requests.RequestException as error:
            if attempt == _ATTEMPTS:
                raise UserError(
                    f"{jar.coordinate} can't be downloaded: check the network ({type(error).__name__})."
                ) from error
            time.sleep(attempt * _RETRY_SECONDS)
            continue
        except RuntimeError as error:
            raise UserError(f"{jar.coordinate} is not in the Maven repository.") from error
        digest = sha256(path)
        if digest != jar.sha256:
            raise UserError(f"{jar.coordinate} has the wrong checksum: {digest} where the lock says {jar.sha256}.")
        path.rename(folder / jar.file_name)
        return


def _is_intact(path: Path, digest: str) -> bool:
    return path.exists() and sha256(path) == digest


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Held by one process at a time; the kernel releases it when that process dies."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
