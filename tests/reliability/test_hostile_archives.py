"""Archives from strangers: a compressed memory or an embedding is taken only where the user's own
key proves it to be of the text beside it; whatever else an archive brings, answers come from its
text.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from cmt_sdk.archive import seal_here
from cmt_sdk.config.settings import archive_key
from cmt_sdk.errors import InvalidSetting
from cmt_sdk.testing.fakes import FakeEngine, open_fake
from cmt_sdk.types import Progress

TRUE = "The night bell code is 4471. Ask Marta."
FALSE = "The night bell code is 9038. Ask Jonas."
ROWS, ARRAYS = "memories/00000.jsonl", "memories/00000.safetensors"
Members = dict[str, bytes]


def exported(folder: Path, *texts: str) -> Path:
    """An archive of a memory of these texts, sealed with the key of this machine."""
    folder.mkdir(exist_ok=True)
    with open_fake(folder / "old") as memory:
        for number, text in enumerate(texts):
            memory.add(text, id=f"d{number}")
        memory.export(folder / "a.cmt")
    return folder / "a.cmt"


def changed(path: Path, change: Callable[[Members], None]) -> Path:
    """The archive as a stranger writes it again."""
    with zipfile.ZipFile(path) as old:
        members = {name: old.read(name) for name in old.namelist()}
    change(members)
    with zipfile.ZipFile(path.with_name("b.cmt"), "w") as new:
        for name, data in members.items():
            new.writestr(name, data)
    return path.with_name("b.cmt")


def rows_of(members: Members) -> list[dict[str, Any]]:
    return [json.loads(line) for line in members[ROWS].splitlines()]


def put_rows(members: Members, rows: list[dict[str, Any]]) -> None:
    members[ROWS] = b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def with_field(name: str, value: object) -> Callable[[Members], None]:
    """Replace a field of every memory's row; None takes it out."""

    def change(members: Members) -> None:
        rows = rows_of(members)
        for row in rows:
            row[name] = value
            if value is None:
                del row[name]
        put_rows(members, rows)

    return change


def other_text(members: Members) -> None:
    """The text and the digest of what was compressed are another's; the memory stays."""
    members["documents.jsonl"] = members["documents.jsonl"].replace(TRUE.encode(), FALSE.encode())
    with_field("content", hashlib.sha256(FALSE.encode()).hexdigest())(members)


def other_memory(members: Members) -> None:
    """The bytes of the memory say something else."""
    arrays = dict(load(members[ARRAYS]))
    hidden = np.frombuffer(FALSE.encode(), np.uint8) ^ np.uint8(0x55)
    members[ARRAYS] = save(arrays | {"0.memory.bytes": hidden})


def other_key_vector(members: Members) -> None:
    """The embedding draws another question to the text."""
    arrays = dict(load(members[ARRAYS]))
    members[ARRAYS] = save(arrays | {"0.key": np.roll(arrays["0.key"], 1)})


def other_shape(members: Members) -> None:
    """The same bytes in another number type."""
    arrays = dict(load(members[ARRAYS]))
    members[ARRAYS] = save(
        arrays | {"0.memory.bytes": arrays["0.memory.bytes"].astype(np.uint8).copy()[::-1].copy()}
    )


@pytest.mark.parametrize(
    "change",
    [
        other_text,
        other_memory,
        other_key_vector,
        other_shape,
        with_field("seal", None),
        with_field("seal", ""),
        with_field("seal", "0" * 64),
        with_field("seal", "\u00e9" * 64),
        with_field("tokens", 3),
        with_field("fidelity", 1.0),
    ],
    ids=lambda change: getattr(change, "__name__", "field"),
)
def test_a_memory_that_is_not_proven_is_made_again(
    tmp_path: Path, change: Callable[[Members], None]
) -> None:
    """Whatever part of it a stranger changed: the text is what answers, and the count says so."""
    path = changed(exported(tmp_path, TRUE), change)
    engine = FakeEngine()
    with open_fake(tmp_path / "new", engine) as memory:
        done = memory.import_archive(path)
        text = next(memory.documents()).text
        assert done == Progress(added=1, passages=1, compressed=1, unproven=1)
        assert engine.compressor.compressed == [text]
        assert memory.model.ask("What is the night bell code?", reader="memory").text in text


def test_a_seal_is_of_one_text_alone(tmp_path: Path) -> None:
    """Two sealed memories that change places prove nothing."""

    def swap(members: Members) -> None:
        first, second = rows_of(members)
        first["content"], second["content"] = second["content"], first["content"]
        first["document"], second["document"] = second["document"], first["document"]
        put_rows(members, [first, second])

    path = changed(exported(tmp_path, TRUE, FALSE), swap)
    with open_fake(tmp_path / "new") as memory:
        assert memory.import_archive(path) == Progress(
            added=2, passages=2, compressed=2, unproven=2
        )


def test_what_this_machine_made_is_taken(tmp_path: Path) -> None:
    """Sealed and unchanged, nothing is compressed again."""
    path, engine = exported(tmp_path, TRUE), FakeEngine()
    with open_fake(tmp_path / "new", engine) as memory:
        assert memory.import_archive(path) == Progress(added=1, passages=1, compressed=1, taken=1)
    assert engine.compressor.compressed == []


def test_another_machine_takes_it_with_the_key_that_was_carried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a key, or with another one, nothing is proven; with the carried file everything
    is.
    """
    path, key = exported(tmp_path, TRUE), archive_key().read_text()
    other = tmp_path / "other" / "archive.key"
    monkeypatch.setenv("CMT_ARCHIVE_KEY", str(other))
    with open_fake(tmp_path / "none") as memory:
        assert memory.import_archive(path).unproven == 1
    assert not other.exists()  # reading makes no key
    exported(tmp_path / "theirs", FALSE)
    assert other.read_text() != key
    with open_fake(tmp_path / "another") as memory:
        assert memory.import_archive(path).unproven == 1
    other.write_text(key)
    with open_fake(tmp_path / "carried") as memory:
        assert memory.import_archive(path).taken == 1


def test_what_the_user_trusts_is_taken(tmp_path: Path) -> None:
    """On the user's word also without a seal; what this model cannot read is still made again."""
    path = changed(exported(tmp_path, TRUE), with_field("seal", None))
    with open_fake(tmp_path / "new") as memory:
        assert memory.import_archive(path, trust=True).taken == 1
    with open_fake(tmp_path / "other", FakeEngine.of(base="another")) as memory:
        assert memory.import_archive(path, trust=True) == Progress(
            added=1, passages=1, compressed=1
        )


def test_the_command_says_what_was_taken_and_why_not(cmt: Any, tmp_path: Path) -> None:
    """Taken, made again with the reason and the two ways on, left waiting, trusted."""
    path = exported(tmp_path, TRUE)
    strange = changed(path, with_field("seal", None))
    assert (
        "compressed passages: 1 taken from the archive, 0 made again"
        in cmt("import", path, "-m", "own").stdout
    )
    told = cmt("import", strange, "-m", "strange").stdout
    assert (
        "compressed passages: 0 taken from the archive, 1 made again from the text; 1 of the archive's are not"
        " sealed" in told
    )
    assert str(archive_key()) in told
    assert "--trust" in told
    assert (
        "pending until `cmt compress`" in cmt("import", strange, "-m", "later", "--no-wait").stdout
    )
    assert cmt.json("import", strange, "-m", "trusted", "--trust")["taken"] == 1


def test_the_key_is_its_owners_alone_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0600 in a folder of 0700; the second export uses the first one's key."""
    monkeypatch.setenv("CMT_ARCHIVE_KEY", str(tmp_path / "data" / "archive.key"))
    first = seal_here(create=True)
    assert first is not None
    assert first == seal_here(create=True)
    assert archive_key().stat().st_mode & 0o777 == 0o600
    assert archive_key().parent.stat().st_mode & 0o777 == 0o700
    assert first.key.hex() not in repr(first)


@pytest.mark.parametrize("said", ["", "short", "z" * 64, "ab" * 31, "é"])
def test_a_file_that_holds_no_key_is_named(said: str) -> None:
    """It is not replaced: perhaps it can be restored."""
    before = archive_key().read_bytes() if archive_key().exists() else None
    archive_key().write_text(said, encoding="utf-8")
    try:
        with pytest.raises(
            InvalidSetting, match="is no key for archives: it needs 64 hexadecimal digits"
        ):
            seal_here(create=True)
        assert archive_key().read_text(encoding="utf-8") == said
    finally:
        archive_key().unlink() if before is None else archive_key().write_bytes(before)


def test_where_no_key_can_be_kept_archives_are_not_sealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An export does not fail for it."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CMT_ARCHIVE_KEY", str(tmp_path / "file" / "archive.key"))
    path = exported(tmp_path, TRUE)
    with open_fake(tmp_path / "new") as memory:
        assert memory.import_archive(path).unproven == 1
