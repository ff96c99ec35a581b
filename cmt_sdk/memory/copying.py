"""Copying a memory to another place: folders, archives and databases. No torch, no SQL."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from cmt_sdk import archive
from cmt_sdk.config import recorded as recording
from cmt_sdk.config.address import DatabaseAddress
from cmt_sdk.config.settings import MEMORY_FILES
from cmt_sdk.errors import (
    AlreadyExists,
    InvalidInput,
    NotFound,
    StorageDenied,
)
from cmt_sdk.memory import Memory
from cmt_sdk.memory.assembly import assemble
from cmt_sdk.memory.copy_ends import (
    Source,
    check_models,
    forgotten_by,
    note_copies,
    stays_out,
    take_kept,
)
from cmt_sdk.memory.stores import make_store
from cmt_sdk.system.disk import sha256_of
from cmt_sdk.types import Copied, Document, Filter, Progress
from cmt_sdk.types.kept import KeptHashes

Opener: TypeAlias = Callable[..., Memory]
OnStep: TypeAlias = Callable[[str, int, int], None]
SUFFIX = ".cmt"  # of an archive that is not there yet
ANY_SIZE = 2**31  # bytes of a text in an archive of our own


def copy_memory(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    diverged: archive.Choice | None = None,
    trust: bool = False,
    reencode: bool = False,
    overwrite: bool = False,
    verify: bool = False,
    on_step: OnStep | None = None,
    open_with: Opener | None = None,
) -> Copied:
    """Copy a memory to a folder, an archive or a database, and compare the two by their hashes.

    Documents come with histories, times and metadata; passages as they are split; compressed
    passages and embeddings byte for byte, without a model. A new memory gets the settings of the
    source, except those that fit one machine: `device`, `runtime`, `objects`, `object_cache` and
    the generator. Expired documents are left out, and what the target has forgotten.

    A copy that was interrupted goes on where it was when it is called again; an archive appears
    complete or not at all. In a memory that holds documents already, the rules of
    `Memory.import_archive` hold: nothing is taken out, and of fields that differ the later change
    counts. What was deleted there, but not forgotten, comes back.

    Args:
        source: A folder, an archive, or the address of a database.
        target: The same; an archive is a file that is there, or a name that ends in ".cmt".
        diverged: Which text becomes current if a document was changed at both: "theirs" is the
            source's; see `import_archive`.
        trust: Take compressed passages of an archive without a seal too.
        reencode: Split and compress texts by the settings of the target, where it cannot use the
            compressed passages of the source.
        overwrite: Replace an archive that is not a copy of the source as it is now.
        verify: Compare only; nothing is copied.
        on_step: Called with a stage, how much of it is done, and the total; 0 where it is unknown.
        open_with: Opens memories in place of `cmt_sdk.open`, such as one with an embedder.

    Returns:
        What was copied, and the differences that the comparison found; it is `complete` without.

    Raises:
        MemoryNotFound, NotFound: There is no source, or no target to compare with.
        InvalidInput: Source and target are the same, or cannot be copied.
        AlreadyExists: Documents were changed at both, or the archive is another one. Nothing is
            stored.
        ModelMismatch: Another model made the target's compressed passages. Nothing is stored.
        StorageDamaged: An archive cannot be read. Nothing is stored.
        StorageDenied: The target is read-only.
        StorageError: The disk or the database refused: copy again, and it goes on.

    Example:
        >>> cmt_sdk.copy_memory("notes", "notes.cmt").complete
        True
    """
    run = _Copy(
        source,
        target,
        open_with or _open,
        on_step or (lambda *_: None),
        {"diverged": diverged, "trust": trust, "reencode": reencode, "overwrite": overwrite},
        verify,
    )
    return run.run()


def is_archive(place: str | os.PathLike[str]) -> bool:
    """Whether a place of a copy is an archive: a file, or a name that ends in ".cmt"."""
    if DatabaseAddress.of(place):
        return False
    path = Path(place)
    return path.is_file() or (path.suffix == SUFFIX and not path.is_dir())


def _open(place: str | os.PathLike[str], **options: Any) -> Memory:
    settings = {n: v for n, v in options.items() if n not in ("create", "encrypted")}
    given = {n: v for n, v in options.items() if n in ("create", "encrypted")}
    where = DatabaseAddress.of(place) or Path(place).expanduser()
    return Memory(assemble(where, settings, **given))


@dataclass
class _Copy:
    """One call of `copy_memory`."""

    source: str | os.PathLike[str]
    target: str | os.PathLike[str]
    opener: Opener
    on_step: OnStep
    options: Mapping[str, Any]
    verify: bool
    kept: KeptHashes = field(default=KeptHashes(""), init=False)  # what stays out of the target

    def run(self) -> Copied:
        if is_archive(self.target):
            return self._to_archive(Path(self.target))
        if is_archive(self.source):
            _check_archive(Path(self.source))
        with self._opened_source() as source:
            if not self.verify:
                self._make_target(source)
            with self.opener(self.target, create=False) as memory:
                return self._to_memory(source, memory)

    # -- the ends

    @contextmanager
    def _opened_source(self) -> Iterator[Source]:
        if not is_archive(self.source):
            with self.opener(self.source, create=False) as memory:
                store = memory._store
                yield Source(
                    memory.location,
                    archive.StoreRecords(store, split=not self.options["reencode"]),
                    store.settings(),
                    store.fingerprints(),
                    store.count(Filter()),
                    memory,
                )
            return
        path = Path(self.source)
        with archive.disk_errors(path), archive.opened(path, ANY_SIZE) as contents:
            found = contents.manifest
            recorded = recording.portable(found.settings)
            makers = list(found.fingerprints.values())
            yield Source(str(path), contents, recorded, makers, found.documents)

    def _make_target(self, source: Source) -> None:
        """Make a target that is not there, with the settings of the source; no model is needed for
        that, except to split the texts of an archive.
        """
        recorded = recording.portable(source.recorded)
        place = DatabaseAddress.of(self.target) or Path(self.target).expanduser()
        is_new = not Memory.exists(self.target)
        if is_new and source.memory is None:
            lasting = asdict(recording.asked(recorded, {}))
            given = {name: lasting[name] for name in lasting if name in recorded}
            self.opener(self.target, create=True, **given).close()
        encrypted = bool(is_new and source.memory and source.memory.encrypted)
        make_store(place, recorded, is_new=is_new, encrypted=encrypted and isinstance(place, Path))

    # -- to an archive

    def _to_archive(self, path: Path) -> Copied:
        if is_archive(self.source):
            return self._copied_file(Path(self.source), path)
        with self._opened_source() as source:
            return self._written(source, path)

    def _written(self, source: Source, path: Path) -> Copied:
        assert source.memory is not None  # noqa: S101 - an archive is copied as a file
        if path.exists() or self.verify:
            found = self._compared_file(source, path)
            if self.verify or not found.differences:
                return _summary(found, Progress(unchanged=source.documents))
            if not self.options["overwrite"]:
                raise AlreadyExists(
                    f"{path} is there already and is no copy of {source.name} as it is now"
                    f" ({found.named[0]}): choose another name, or give overwrite=True (`cmt`:"
                    " --overwrite)"
                )
        count = source.memory.export(path, overwrite=self.options["overwrite"])
        found = self._compared_file(source, path)
        return _summary(found, Progress(added=count, compressed=found.passages))

    def _compared_file(self, source: Source, path: Path) -> archive.Compared:
        with archive.disk_errors(path), archive.opened(path, ANY_SIZE) as contents:
            return archive.compare(source.records, contents, self._on_compared(source))

    def _copied_file(self, source: Path, path: Path) -> Copied:
        """Copy an archive as it is, once it is found sound."""
        _check_archive(source)
        if path.exists() and source.samefile(path):
            raise _same(str(source))
        with archive.disk_errors(source), archive.opened(source, ANY_SIZE) as contents:
            documents = sum(1 for _ in contents.documents())
            contents.check()
            passages = contents.manifest.memories
        done = Progress(unchanged=documents)
        if not (path.exists() and sha256_of(source) == sha256_of(path)) and not self.verify:
            if path.exists() and not self.options["overwrite"]:
                raise AlreadyExists(
                    f"{path} is there already and is no copy of {source}: choose another name, or"
                    " give overwrite=True (`cmt`: --overwrite)"
                )
            with archive.disk_errors(path), source.open("rb") as old, archive.new_file(path) as new:
                shutil.copyfileobj(old, new)
            done = Progress(added=documents, compressed=passages)
        with archive.disk_errors(path):
            same = sha256_of(source) == sha256_of(path)
        found = archive.Compared(documents, passages)
        if not same:
            found.differs(f"{path} has other bytes than {source}")
        return _summary(found, done)

    # -- to a memory

    def _to_memory(self, source: Source, target: Memory) -> Copied:
        store = target._store
        if source.memory and source.memory._store.identity() == store.identity():
            raise _same(source.name)
        found = archive.Matches(store, self.options["diverged"], f"{source.name}")
        self.kept = store.kept_hashes()
        done = Progress()
        reencoded = 0
        if self.verify:
            found.match(source.records.documents())
        else:
            done = self._merged(source, target, found)
            if self.options["reencode"]:
                reencoded = target.compress(lambda p: self.on_step("compressing", p.compressed, 0))
            take_kept(source, target)
            target._index.maintain()
        compared = archive.compare_with_store(
            source.records,
            found,
            self._stays_out,
            self._on_compared(source),
            with_passages=not self.options["reencode"],
            may_be_cold=target.settings.memory_budget > 0,
        )
        return _summary(
            compared,
            done,
            reencoded=reencoded,
            left_out=len(found.left_out),
            pending=store.stats().pending,
            forgotten=forgotten_by(source, target),
        )

    def _merged(self, source: Source, target: Memory, found: archive.Matches) -> Progress:
        if target.read_only:
            raise StorageDenied(
                f"{target.location} is read-only, as its medium, its files or its role are: give a"
                " target that can be written"
            )
        if not self.options["reencode"]:
            check_models(source, target)
        rules = self._rules(source, target)
        if source.memory is None:
            self._check_proofs(source, rules)
        note_copies(source, self.source, target, self.target)  # before the first document is there
        done = Progress()
        for progress in archive.merge(found, source.records, rules):
            if progress.compressed > done.compressed:
                target._passage_encoder.hold_budget()
            done = progress
            stored = progress.added + progress.updated + progress.unchanged
            self.on_step("documents", stored, source.documents)
            self.on_step("compressed passages", progress.compressed, 0)
        return done

    def _rules(self, source: Source, target: Memory) -> archive.ArchiveImport:
        ingestor, store = target._ingestor, target._store
        trust = self.options["trust"] or source.memory is not None

        def check(document: Document) -> None:
            store.find_known(document)  # refuses a field that this database cannot hold
            if source.memory is None:
                ingestor.check_text(document)

        return archive.ArchiveImport(
            check,
            ingestor.split,
            self._accepts(source, target),
            ANY_SIZE,
            None if trust else archive.seal_here(create=False),
            trust,
            self._stays_out,
        )

    def _accepts(self, source: Source, target: Memory) -> Callable[..., bool]:
        """What the target can use: of another store all, of an archive what its model checks."""
        if source.memory is not None and not self.options["reencode"]:
            return lambda *_: True
        return target._passage_encoder.accepts

    def _check_proofs(self, source: Source, rules: archive.ArchiveImport) -> None:
        """Raise InvalidInput for an archive with compressed passages that no key of the user's has
        sealed.
        """
        if self.options["trust"] or self.options["reencode"]:
            return
        passages = (p for shard in source.records.shards(lambda _: None) for p in shard)
        unproven = sum(not rules.proven(passage) for passage in passages)
        if unproven:
            from cmt_sdk.config.settings import archive_key

            raise InvalidInput(
                f"{unproven:,} compressed passages of {source.name} are not sealed with your key"
                f" ({archive_key()}): carry the key of the machine that made it here; or give"
                " trust=True (`cmt`: --trust) if you trust the file, or reencode=True (`cmt`:"
                " --reencode) to compress its texts again"
            )

    def _stays_out(self, document: Document) -> bool:
        return stays_out(self.kept, document)

    def _on_compared(self, source: Source) -> Callable[[archive.Compared], None]:
        def step(found: archive.Compared) -> None:
            self.on_step("comparing documents", found.documents, source.documents)
            if found.passages:
                self.on_step("comparing compressed passages", found.passages, 0)

        return step


def _check_archive(path: Path) -> None:
    """Raise an error, with the remedy, for a file that is no archive."""
    if not path.exists():
        raise NotFound(f"there is no file {path}")
    if path.suffix == ".db":
        raise InvalidInput(
            f"{path} is one file of a memory: name it {MEMORY_FILES[0]} in an empty folder, and"
            " give the folder"
        )


def _same(name: str) -> InvalidInput:
    return InvalidInput(f"source and target are both {name}: give another target")


def _summary(found: archive.Compared, done: Progress, **more: Any) -> Copied:
    return Copied(
        added=done.added,
        updated=done.updated,
        unchanged=done.unchanged,
        compressed=done.compressed,
        documents=found.documents,
        passages=found.passages,
        differences=found.differences,
        named=tuple(found.named),
        **more,
    )
