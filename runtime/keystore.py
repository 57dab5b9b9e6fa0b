"""Keys of personal data: one per customer, outside of the topics (rule 7).

Names, streets and the like travel as AES-GCM envelopes; whoever erases a customer's key here has erased them from
seven years of log. `KeyStore` is the port: a company puts its key management service behind it. The default is an
SQLite file that several processes of one machine share (gateway, sinks).
"""

from __future__ import annotations

import base64
import hmac
import os
import sqlite3
import threading
import uuid
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import orjson
from cachetools import TTLCache
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from runtime.settings import Settings
from schemas.address import Sealed

FINGERPRINTS = "\x00fingerprints"
"""Whose key makes fingerprints: no customer's id has control characters."""

REMEMBERED = 60.0
"""Seconds for which a process may go on using a key after another one has erased it."""


class KeyStore(Protocol):
    """Where the keys are. Every method may block (file, network)."""

    def key_of(self, customer_id: str) -> tuple[str, bytes]:
        """(key id, 32 bytes) to seal this customer's data with; made at the first call."""
        ...

    def find(self, key_id: str) -> bytes | None:
        """The key, or None when it was erased (or never was)."""
        ...

    def erase(self, customer_id: str) -> bool:
        """Forget the customer's key for good. False when there was none."""
        ...


class SqliteKeyStore:
    """Keys in one SQLite file (mode 0600, write-ahead log), safe for several processes and threads at a time."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))  # SQLite gives its -wal and -shm the same mode
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, timeout=10, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        # A key that was used and is lost is data that is lost, so it is on disk before anything is sealed with it.
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA secure_delete = ON")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS keys (customer_id TEXT PRIMARY KEY, key_id TEXT NOT NULL UNIQUE,"
            " secret BLOB NOT NULL) STRICT"
        )

    def key_of(self, customer_id: str) -> tuple[str, bytes]:
        query = "SELECT key_id, secret FROM keys WHERE customer_id = ?"
        with self._lock:
            found = self._one(query, customer_id)
            if found is None:
                fresh = (customer_id, str(uuid.uuid4()), AESGCM.generate_key(256))
                with closing(self._db.execute("INSERT OR IGNORE INTO keys VALUES (?, ?, ?)", fresh)):
                    found = self._one(query, customer_id)  # another process may have been first
        if found is None:
            raise RuntimeError("the key store lost a key that was just made")
        return found[0], found[1]

    def find(self, key_id: str) -> bytes | None:
        with self._lock:
            found = self._one("SELECT secret FROM keys WHERE key_id = ?", key_id)
        return None if found is None else found[0]

    def erase(self, customer_id: str) -> bool:
        with self._lock:
            with closing(self._db.execute("DELETE FROM keys WHERE customer_id = ?", (customer_id,))) as cursor:
                erased = cursor.rowcount > 0
            # The write-ahead log still holds pages from before the deletion.
            self._one("PRAGMA wal_checkpoint(TRUNCATE)")
        return erased

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _one(self, query: str, *args: str) -> Any:
        with closing(self._db.execute(query, args)) as cursor:
            return cursor.fetchone()


class Vault:
    """Seals and opens JSON objects. Keys are remembered for `REMEMBERED` seconds; with a remembered key (see
    `knows`, `knows_key`) nothing here blocks."""

    def __init__(self, store: KeyStore, remembered: float = REMEMBERED) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._fingerprints: bytes | None = None
        self._of_customer: TTLCache[str, tuple[str, AESGCM]] = TTLCache(20_000, remembered)
        self._by_id: TTLCache[str, AESGCM | None] = TTLCache(20_000, remembered)

    def knows(self, customer_id: str) -> bool:
        with self._lock:
            return customer_id in self._of_customer

    @property
    def can_fingerprint(self) -> bool:
        """Whether `fingerprint` does not block."""
        return self._fingerprints is not None

    def knows_key(self, key_id: str) -> bool:
        with self._lock:
            return key_id in self._by_id

    def seal(self, customer_id: str, data: dict[str, Any]) -> Sealed:
        """An envelope that only this customer's key opens."""
        key_id, key = self._key_of(customer_id)
        nonce = os.urandom(12)
        ciphertext = key.encrypt(nonce, orjson.dumps(data), key_id.encode())
        return Sealed(
            key_id=key_id, nonce=base64.b64encode(nonce).decode(), ciphertext=base64.b64encode(ciphertext).decode()
        )

    def fingerprint(self, text: str) -> str:
        """A keyed hash (hex, 128 bits): the same text has the same one, and nothing can be read from it."""
        if self._fingerprints is None:
            self._fingerprints = self._store.key_of(FINGERPRINTS)[1]
        return hmac.digest(self._fingerprints, text.encode(), "sha256")[:16].hex()

    def open(self, sealed: Sealed) -> dict[str, Any] | None:
        """What was sealed; None when the customer's key has been erased. ValueError when the envelope was tampered
        with or is broken."""
        key = self._key(sealed.key_id)
        if key is None:
            return None
        try:
            nonce = base64.b64decode(sealed.nonce, validate=True)
            ciphertext = base64.b64decode(sealed.ciphertext, validate=True)
            data: dict[str, Any] = orjson.loads(key.decrypt(nonce, ciphertext, sealed.key_id.encode()))
        except InvalidTag:
            raise ValueError(f"an envelope of key {sealed.key_id} was tampered with") from None
        return data

    def erase(self, customer_id: str) -> bool:
        """Forget the customer's key, here at once and in other processes within `REMEMBERED` seconds."""
        erased = self._store.erase(customer_id)
        with self._lock:
            self._of_customer.pop(customer_id, None)
            self._by_id.clear()  # whose key an id was is not remembered
        return erased

    def _key_of(self, customer_id: str) -> tuple[str, AESGCM]:
        with self._lock:
            found = self._of_customer.get(customer_id)
        if found is None:
            key_id, secret = self._store.key_of(customer_id)
            found = key_id, AESGCM(secret)
            with self._lock:
                self._of_customer[customer_id] = found
                self._by_id[key_id] = found[1]
        return found

    def _key(self, key_id: str) -> AESGCM | None:
        with self._lock:
            if key_id in self._by_id:
                return self._by_id[key_id]
        secret = self._store.find(key_id)
        key = None if secret is None else AESGCM(secret)
        with self._lock:
            self._by_id[key_id] = key
        return key


def vault(settings: Settings) -> Vault:
    """The vault over the key store that the settings name."""
    return Vault(SqliteKeyStore(settings.key_store_path))
