"""Sealed values open in their own place, with the right key, and nowhere else."""

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import SealError
from storage.sealing import Sealer

OLD = ("2025", bytes(32))
NEW = ("2026", bytes(range(32)))
PLACE = {"table": "sealed_secrets", "column": "value", "row": "ca"}


@given(st.binary(max_size=200), st.text(), st.text(), st.text())
def test_a_value_opens_where_it_was_sealed(plain: bytes, table: str, column: str, row: str) -> None:
    sealer = Sealer([NEW])
    sealed = sealer.seal(plain, table=table, column=column, row=row)
    assert sealer.open(sealed, table=table, column=column, row=row) == plain


@pytest.mark.parametrize(
    "moved",
    [
        {"table": "people"},
        {"column": "name"},
        {"row": "other"},
        {"table": "sealed_secretsvalue", "column": ""},
        {"column": 'value", "ca', "row": ""},
    ],
)
def test_a_value_moved_elsewhere_does_not_open(moved: dict[str, str]) -> None:
    sealed = Sealer([NEW]).seal(b"secret", **PLACE)
    with pytest.raises(SealError, match="does not open: it was altered, moved there, or sealed with another key"):
        Sealer([NEW]).open(sealed, **(PLACE | moved))


def test_the_same_value_is_never_sealed_the_same_way_twice() -> None:
    sealer = Sealer([NEW])
    assert len({sealer.seal(b"secret", **PLACE) for _ in range(100)}) == 100


def test_every_altered_bit_is_found() -> None:
    sealer = Sealer([NEW])
    head, _, payload = sealer.seal(b"secret", **PLACE).rpartition(":")
    content = base64.b64decode(payload)
    for at in range(len(content) * 8):
        altered = bytearray(content)
        altered[at // 8] ^= 1 << at % 8
        with pytest.raises(SealError):
            sealer.open(f"{head}:{base64.b64encode(altered).decode()}", **PLACE)


def test_a_value_given_another_keys_name_does_not_open() -> None:
    sealed = Sealer([NEW]).seal(b"secret", **PLACE)
    same_key = Sealer([("other", NEW[1])])
    with pytest.raises(SealError):
        same_key.open(sealed.replace("2026", "other"), **PLACE)


def test_rotation_opens_the_old_and_seals_with_the_new() -> None:
    sealed = Sealer([OLD]).seal(b"secret", **PLACE)
    both = Sealer([NEW, OLD])

    resealed = both.reseal(sealed, **PLACE)

    assert both.open(sealed, **PLACE) == b"secret"
    assert resealed.startswith("v1:2026:")
    assert both.reseal(resealed, **PLACE) == resealed
    assert Sealer([NEW]).open(resealed, **PLACE) == b"secret"
    with pytest.raises(SealError, match="sealed with the key 2025, which is not among the sealing keys"):
        Sealer([NEW]).open(sealed, **PLACE)


def test_another_key_of_the_same_name_does_not_open() -> None:
    sealed = Sealer([NEW]).seal(b"secret", **PLACE)
    with pytest.raises(SealError):
        Sealer([(NEW[0], bytes(32))]).open(sealed, **PLACE)


@pytest.mark.parametrize("text", ["", "secret", "v1:2026", "v1:2026:", "v1:2026:!!!", "v1:2026:AAAA", "v2:2026:AAAA"])
def test_what_is_not_sealed_is_called_so(text: str) -> None:
    with pytest.raises(SealError, match=r"sealed_secrets.value of ca is not a sealed value"):
        Sealer([NEW]).open(text, **PLACE)


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        ([], "no sealing key"),
        ([("short", b"x")], "has 1 bytes instead of 32"),
        ([NEW, ("2026", bytes(32))], "same id"),
        ([("a:b", bytes(32))], "1 to 40 letters"),
        ([("", bytes(32))], "1 to 40 letters"),
    ],
)
def test_unfit_keys_are_refused(keys: list[tuple[str, bytes]], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Sealer(keys)


def test_keys_are_never_shown() -> None:
    assert repr(Sealer([NEW, OLD])) == "Sealer(2026, 2025)"


def test_a_sealed_file_is_its_owners_and_opens_for_its_purpose_only(tmp_path: Path) -> None:
    path = tmp_path / "ca"
    sealer = Sealer([NEW])
    sealer.seal_file(path, b"first", purpose="ssh-ca")
    sealer.seal_file(path, b"secret", purpose="ssh-ca")

    assert sealer.open_file(path, purpose="ssh-ca") == b"secret"
    assert oct(path.stat().st_mode & 0o777) == "0o600"
    assert b"secret" not in path.read_bytes()
    assert [found.name for found in tmp_path.iterdir()] == ["ca"]
    with pytest.raises(SealError):
        sealer.open_file(path, purpose="other")
    with pytest.raises(SealError):
        sealer.open(path.read_text().strip(), table="sealed_secrets", column="ssh-ca", row="")


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ca"
    sealer = Sealer([NEW])
    sealer.seal_file(path, b"secret", purpose="ssh-ca")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        sealer.seal_file(path, b"new", purpose="ssh-ca")
    monkeypatch.undo()
    assert sealer.open_file(path, purpose="ssh-ca") == b"secret"
    assert [found.name for found in tmp_path.iterdir()] == ["ca"]
