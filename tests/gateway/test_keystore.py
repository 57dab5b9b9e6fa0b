"""Personal data: sealed with a key per customer, shared by processes, gone when the key is."""

from __future__ import annotations

import multiprocessing
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.keystore import SqliteKeyStore, Vault
from schemas.address import Sealed

PERSON = {"name": "Ada Lovelace", "street_address": "St James's Square 12", "city": "London"}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteKeyStore]:
    found = SqliteKeyStore(tmp_path / "keys.sqlite")
    yield found
    found.close()


def test_what_is_sealed_opens_again(store: SqliteKeyStore) -> None:
    vault = Vault(store)
    sealed = vault.seal("ada", PERSON)
    assert vault.open(sealed) == PERSON
    assert Vault(store).open(sealed) == PERSON
    assert "Ada" not in sealed.model_dump_json()
    assert vault.seal("ada", PERSON) != sealed


def test_every_customer_has_a_key_of_their_own(store: SqliteKeyStore) -> None:
    vault = Vault(store)
    ada, charles = vault.seal("ada", PERSON), vault.seal("charles", PERSON)
    assert ada.key_id != charles.key_id
    swapped = ada.model_copy(update={"key_id": charles.key_id})
    with pytest.raises(ValueError, match="tampered"):
        vault.open(swapped)


@pytest.mark.parametrize("field", ["nonce", "ciphertext"])
def test_tampering_shows(store: SqliteKeyStore, field: str) -> None:
    vault = Vault(store)
    sealed = vault.seal("ada", PERSON)
    text = getattr(sealed, field)
    changed = ("B" if text[0] == "A" else "A") + text[1:]
    with pytest.raises(ValueError, match="tampered"):
        vault.open(sealed.model_copy(update={field: changed}))


def test_erasing_the_key_erases_the_person(store: SqliteKeyStore) -> None:
    vault = Vault(store)
    sealed, other = vault.seal("ada", PERSON), vault.seal("charles", PERSON)
    assert vault.erase("ada")
    assert vault.open(sealed) is None
    assert Vault(store).open(sealed) is None
    assert vault.open(other) == PERSON
    assert not vault.erase("ada")
    again = vault.seal("ada", PERSON)  # who comes back gets another key
    assert again.key_id != sealed.key_id
    assert vault.open(sealed) is None


def test_an_erased_key_is_forgotten_by_other_processes_in_time(store: SqliteKeyStore) -> None:
    here, there = Vault(store), Vault(store, remembered=0.0)
    sealed = here.seal("ada", PERSON)
    assert there.open(sealed) == PERSON
    here.erase("ada")
    assert there.open(sealed) is None


def test_no_trace_of_an_erased_key_is_left_in_the_files(tmp_path: Path) -> None:
    store = SqliteKeyStore(tmp_path / "keys.sqlite")
    _, secret = store.key_of("ada")
    assert any(secret in file.read_bytes() for file in tmp_path.iterdir())
    store.erase("ada")
    assert not any(secret in file.read_bytes() for file in tmp_path.iterdir())
    store.close()


def test_the_files_are_nobody_elses_business(tmp_path: Path) -> None:
    store = SqliteKeyStore(tmp_path / "deep" / "keys.sqlite")
    store.key_of("ada")
    assert {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "deep").iterdir()} == {0o600}
    store.close()


def _seal(path: Path, customers: list[str]) -> list[tuple[str, Sealed]]:
    store = SqliteKeyStore(path)
    vault = Vault(store)
    found = [(customer, vault.seal(customer, {"name": customer})) for customer in customers]
    store.close()
    return found


def test_processes_share_the_file(tmp_path: Path) -> None:
    path = tmp_path / "keys.sqlite"
    customers = [f"c{i}" for i in range(50)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        sealed = [one for many in pool.starmap(_seal, [(path, customers)] * 2) for one in many]
    assert len({envelope.key_id for _, envelope in sealed}) == len(customers)
    store = SqliteKeyStore(path)
    vault = Vault(store)
    assert all(vault.open(envelope) == {"name": customer} for customer, envelope in sealed)
    store.close()
