"""Upkeep: archives, backups, the index, settings, checks. No torch, no SQL."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from cmt_sdk.config.recorded import FITTED, asked, portable, recalled
from cmt_sdk.config.settings import Settings, SettingsFields
from cmt_sdk.errors import InvalidSetting, StorageError
from cmt_sdk.memory.changing import Changing
from cmt_sdk.types import CheckResult, DeletedObjects, Progress

if TYPE_CHECKING:
    from cmt_sdk.archive import Choice
    from cmt_sdk.memory.ingestion import OnProgress

log = logging.getLogger(__name__)


class Upkeep(Changing):
    """The calls that copy, check and configure a memory."""

    def export(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> int:
        """Write everything to one archive (JSON lines and safetensors in a zip file).

        Its compressed passages are sealed with the user's key (`$CMT_ARCHIVE_KEY`, else
        `archive.key` in the data folder), which is made if there is none. If the key cannot be
        kept, they go out unsealed, and importing makes them again from the text.

        Returns:
            The number of documents in the archive.

        Raises:
            AlreadyExists: The file exists, without `overwrite`.
            NotFound: There is no such folder.
            StorageFull: No space is left.
            StorageDenied: The file may not be written.
            InvalidInput: The path is a file of the memory.
        """
        from cmt_sdk import archive

        count = archive.write(
            self._store,
            Path(path),
            overwrite=overwrite,
            seal=archive.seal_here(create=True),
            settings=portable(self._store.settings()),
        )
        self._note_copy(Path(path))
        return count

    def _note_copy(self, place: Path | str) -> None:
        """Record where a copy is, for the receipts of `forget`; the copy stands even if that cannot
        be written.
        """
        if self.read_only:
            return
        try:
            self._store.note_copy(place)
        except StorageError as error:
            log.warning("%s; receipts of `forget` will not name the copy %s", error, place)

    def import_archive(
        self,
        path: str | os.PathLike[str],
        *,
        diverged: Choice | None = None,
        trust: bool = False,
        wait: bool = True,
        on_progress: OnProgress | None = None,
    ) -> Progress:
        """Add the documents of an archive, with their histories.

        Its compressed passages are taken over if this model can read them and the user's key has
        sealed them, else made again. A document that is here already continues with the archive's
        later versions; if the archive is older, it stays as it is. Of fields that differ the later
        change counts, metadata key by key. Nothing is taken out, and documents that were deleted or
        forgotten here come back if the archive has them.

        Args:
            path: A file of `export`.
            diverged: Which text becomes current if a document was changed both here and there:
                "ours" or "theirs", the other one then stays in its history; "both" makes the
                archive's another document; None refuses such an archive.
            trust: Take compressed passages and embeddings without a seal too, believing that they
                are of the texts next to them.
            wait: False lets compression follow in the background.
            on_progress: Called with the Progress after every step.

        Returns:
            How many documents were added, and how many compressed passages were taken over.

        Raises:
            AlreadyExists: Documents were changed here and there; names, versions and dates are in
                the message. Nothing is stored.
            StorageDamaged: The archive cannot be read. Nothing is stored.
            StorageNewer: A newer release wrote the archive. Nothing is stored.
        """
        from cmt_sdk import archive

        if diverged not in (None, *archive.CHOICES):
            raise InvalidSetting(
                f"diverged={diverged!r}: choose one of {', '.join(archive.CHOICES)}"
            )
        report = on_progress or (lambda _: None)
        progress = Progress()
        for progress in self._ingestor.from_archive(Path(path), diverged, trust=trust):
            report(progress)
        if not wait:
            self._worker.wake()
            return progress
        return progress.plus(
            compressed=self.compress(lambda p: report(progress.plus(compressed=p.compressed)))
        )

    def reindex(self) -> str:
        """Rebuild the vector index; returns its description."""
        self._index.rebuild()
        return self._index.describe()

    def reencode(self, on_progress: OnProgress | None = None) -> int:
        """Encode every passage that another model or other settings encoded; resumable.

        Documents that an earlier release or other settings split are split again first.

        Returns:
            The number of passages.
        """
        self._ingestor.split_outdated()
        self._store.forget_encodings(self._passage_encoder.fingerprint)
        return self.compress(on_progress)

    def check(self) -> Sequence[CheckResult]:
        """Check files, database, index and compressed passages; each result has its remedy.
        `cmt_sdk.repair` repairs what can be repaired.
        """
        return self._store.check()

    def finish_repair(self, on_progress: OnProgress | None = None) -> int:
        """Make what `cmt_sdk.repair` left to the model: passages, compressed passages, index.

        Returns:
            The number of passages compressed.
        """
        self._ingestor.split_missing()
        count = self.compress(on_progress)
        self._index.rebuild()
        return count

    def delete_unused_objects(self) -> DeletedObjects:
        """Delete the objects that no passage needs any more, where the setting `objects` has put
        compressed passages outside the database.

        `forget` does this, and so does adding, from time to time. This call also looks through the
        place for objects that the memory does not know, such as after a backup was restored, and
        deletes those that are a day old.

        Returns:
            What was deleted. Without objects that is nothing.

        Raises:
            StorageError: The place gives no answer: call again, and it goes on.
        """
        return self._store.delete_unused_objects(look=True)

    def backup(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Copy the memory as of one moment, while others write.

        To restore a file, name it memory.db in an empty folder.

        Args:
            path: A file *.db, else a folder that then opens as a memory.
            overwrite: Replace an existing file.

        Returns:
            The file.

        Raises:
            AlreadyExists: The file exists, without `overwrite`.
            StorageFull: No space is left.
            StorageDenied: The file may not be written.
        """
        made = self._store.back_up(Path(path).expanduser(), overwrite=overwrite)
        self._note_copy(made)
        return made

    def configure(self, **settings: Unpack[SettingsFields]) -> Settings:
        """Change recorded settings; they hold from the next opening of this folder.

        Args:
            **settings: Fields of `Settings`.

        Returns:
            All settings as they are recorded now.

        Raises:
            InvalidSetting: An unknown name, a value outside its range, or a setting that the
                compressor does not use.

        Example:
            >>> memory.configure(memory_budget=2_000_000_000).memory_budget
            2000000000
        """
        recorded = self._store.settings()
        changed = asked(recorded, settings)
        if "objects" in settings:  # one that cannot be used would keep the memory from opening
            self._store.keep_objects(changed.objects, changed.object_cache)
        fitted = {name: value for name, value in recorded.items() if name == FITTED}
        self._store.set_settings(asdict(changed) | fitted)
        return recalled(changed, recorded)
