"""Objects: large compressed passages outside the database, for both databases. Knows the table
`objects` and the data of rows; `Bucket` has the bytes.

An object is put before the transaction that names it, and deleted after the one that named it last,
so that no row names nothing. The table counts for each object the rows that name it, by triggers:
whatever deletes a row is counted. A process reserves a name there before it puts an object, and
takes it before it deletes one; a row names an object only if the reservation still stands, and
holds the bytes itself where it does not. docs/format.md has the columns.
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Connection, TextClause, bindparam, text

from cmt_sdk.config.settings import objects_dir
from cmt_sdk.errors import InvalidSetting, StorageDamaged, StorageError
from cmt_sdk.storage.bucket import Bucket, is_missing
from cmt_sdk.storage.object_cache import ObjectCache
from cmt_sdk.storage.recorded import Recorded
from cmt_sdk.storage.references import LARGE, SIZE, Reference
from cmt_sdk.types import CheckResult, DeletedObjects

ROW = "objects"  # of the settings: where the objects are
AGE = timedelta(days=1)  # after which what was put and never named is left over from a crash
LEASE_S = 900.0  # seconds that a taken object stays taken if its process has died
BATCH = 100  # objects that are deleted together: well within the lease
UNUSED = """uses = 0 AND (reserved_at IS NULL OR reserved_at < :old)
    AND (taken_until IS NULL OR taken_until < :now)"""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the objects of a memory are: an address, and the folder of this memory in it."""

    location: str
    folder: str


class Objects(Recorded):
    """The part of a store that keeps large compressed passages as objects.

    Without a place for them it does nothing: rows hold the passages.
    """

    _location: str | None = None  # where new ones go
    _cache_here: ObjectCache | None = None
    _marked = False  # whether this process has seen the marker of the place
    _bucket: Bucket | None = None
    _lock_rows = ""  # what follows a SELECT of rows that must not change meanwhile

    def keep_objects(self, location: str | None, cache_bytes: int) -> None:
        """Say where large compressed passages go from now on, and how many bytes of them stay on
        this machine's disk. Those that are objects already are read from where they are.

        Args:
            location: an address that `object_fault` finds no fault in; None: new ones go into rows.
            cache_bytes: 0 keeps none.

        Raises:
            InvalidSetting: the objects of this memory are in another place, or it is encrypted.
            MissingExtra: the extra `objects` is not installed.
        """
        if location is not None and self.encrypted:
            raise InvalidSetting(
                f"objects={location!r:.80}: this memory is encrypted, and its objects would not be:"
                " keep them in the database (objects=None), or copy the memory to one that is not"
                " encrypted and let the provider encrypt the bucket"
            )
        self._cache_here = ObjectCache(objects_dir(), cache_bytes)
        if location is not None:
            place = self._object_place()
            if place is not None and place.location != location:
                self._move_objects(place, location)
            elif place is None:
                Bucket(location, "")  # an address that cannot be used is refused now
        self._location = location

    def delete_unused_objects(self, *, look: bool = False) -> DeletedObjects:
        """Delete the objects that no row names any more.

        Args:
            look: list the place too, and delete what is there without this database's knowledge,
                such as after a restore of an older backup, once it is AGE old.

        Raises:
            StorageError: the place gives no answer: call again, and it goes on.
        """
        if (bucket := self._opened_bucket()) is None:
            return DeletedObjects()
        if look:
            self._note_unknown(bucket)
        names: list[str] = []
        unproven: list[str] = []
        while taken := self._take_unused():
            until, some = taken
            try:
                proofs = bucket.delete(some)
            except BaseException:
                self._settle_objects(until, some, "UPDATE objects SET taken_until = NULL")
                raise
            self._cache.remove(some)
            self._settle_objects(until, some, "DELETE FROM objects")
            names += some
            unproven += [name for name, proven in proofs.items() if not proven]
        with self._read() as db:
            left = "SELECT count(*) FROM objects WHERE uses = 0 AND reserved_at IS NULL"
            return DeletedObjects(
                tuple(names), tuple(unproven), int(db.execute(text(left)).scalar_one())
            )

    # -- for the tables

    def _write_objects(self) -> AbstractContextManager[Connection]:
        """Begin a transaction that writes the table `objects`."""
        return self._write()

    def _put_objects(self, packed: Mapping[int, bytes]) -> dict[int, tuple[Reference, str]]:
        """Put large compressed passages before the transaction that stores their rows.

        Args:
            packed: their bytes by passage id.

        Returns:
            References with their reservations, by passage id; the others go into their rows.
        """
        if self._location is None:
            return {}
        references = {i: Reference.to(d) for i, d in packed.items() if len(d) >= LARGE}
        if not references:
            return {}
        names = sorted({reference.name for reference in references.values()})
        with self._write_objects() as db:
            is_new = self._record_place(db, self._location)
            tokens = self._reserve_objects(db, names)
        bucket = self._opened_bucket()
        assert bucket is not None  # noqa: S101 - its place is recorded above
        if is_new:
            bucket.mark()
        elif self._is_unmarked(bucket):
            bucket.require()
        bodies = {r.name: packed[i] for i, r in references.items() if r.name in tokens}
        bucket.put(bodies)
        return {i: (r, tokens[r.name]) for i, r in references.items() if r.name in tokens}

    def _row_data(
        self, db: Connection, put: Mapping[int, tuple[Reference, str]], packed: Mapping[int, bytes]
    ) -> dict[int, bytes]:
        """Return the data of rows: references where reservations stand, else the passages."""
        if not put:
            return dict(packed)
        sql = f"""SELECT name, token FROM objects WHERE name IN :names AND taken_until IS NULL
            ORDER BY name{self._lock_rows}"""
        names = sorted({reference.name for reference, _ in put.values()})
        rows = db.execute(_with_names(sql), {"names": names})
        standing = {(row.name, row.token) for row in rows}
        kept = {i: r.data for i, (r, token) in put.items() if (r.name, token) in standing}
        return {**packed, **kept}

    def _bodies(self, stored: Mapping[int, bytes]) -> dict[int, bytes]:
        """Return compressed passages by passage id from the data of their rows; one whose object is
        missing or damaged is left out, as a damaged row is.

        Raises:
            StorageError: the place of the objects gives no answer.
        """
        found = {i: Reference.of(data) for i, data in stored.items()}
        references = {i: r for i, r in found.items() if r is not None}
        bodies = {i: data for i, data in stored.items() if i not in references}
        if not references:
            return bodies
        got = self._read_objects({r.name: r for r in references.values()})
        for passage, reference in references.items():
            body = got[reference.name]
            if isinstance(body, bytes):
                bodies[passage] = body
            else:
                log.warning(
                    "the compressed form of passage %d will be made again from its text: %s",
                    passage,
                    body,
                )
        return bodies

    def _damaged_objects(self, db: Connection) -> dict[int, str]:
        """Return the passages whose object is missing or has another length, and what is wrong.
        Lists the place, and reads no object.
        """
        if (bucket := self._opened_bucket(db)) is None:
            return dict.fromkeys(_references(db), "no place of objects is recorded")
        sizes = {name: size for part in bucket.sizes() for name, (size, _) in part.items()}
        if not sizes:
            bucket.require()
        wrong = {}
        for passage, reference in _references(db).items():
            size = sizes.get(reference.name)
            if size is None:
                wrong[passage] = f"object {bucket.address(reference.name)} is missing"
            elif size != reference.length:
                wrong[passage] = (
                    f"object {bucket.address(reference.name)} has {size:,} bytes in place of"
                    f" {reference.length:,}"
                )
        return wrong

    def _object_findings(self, db: Connection) -> Iterator[CheckResult]:
        """Yield the result of the check of objects, where there are any."""
        if not (references := _references(db)):
            return
        place = self._object_place(db)
        where = place.location if place else "no place"
        try:
            wrong = self._damaged_objects(db)
        except StorageError as error:
            yield CheckResult("objects", False, str(error), "try again once it can be reached")
            return
        bad = [f"passage {passage}: {why}" for passage, why in wrong.items()]
        detail = f"{len(references)} in {where}"
        if bad:
            detail = f"{len(bad)} of {len(references)} in {where} cannot be read ({bad[0]})"
        remedy = "nothing: they are made again when they are needed" if bad else ""
        yield CheckResult("objects", not bad, detail, remedy)

    def _delete_left_over(self) -> None:
        """Delete what became unused; another time where the place gives no answer."""
        try:
            self.delete_unused_objects()
        except StorageError as error:
            log.info("unused objects stay for now: %s", error)

    # -- the place

    def _object_place(self, db: Connection | None = None) -> Place | None:
        """Return the recorded place, read in the caller's transaction or one of its own."""
        if db is None:
            with self._read() as own:
                return self._object_place(own)
        found = self._recorded(db, ROW)
        if found is None:
            return None
        try:
            values = json.loads(found)
            return Place(str(values["location"]), str(values["folder"]))
        except (ValueError, TypeError, KeyError) as error:
            raise StorageDamaged(
                f"the place of the objects in {self.place} is damaged ({error}): run `cmt check"
                " --repair`"
            ) from error

    def _opened_bucket(self, db: Connection | None = None) -> Bucket | None:
        """Return the bucket with the objects; None where there is none yet."""
        if self._bucket is None and (place := self._object_place(db)) is not None:
            self._bucket = Bucket(place.location, place.folder)
        return self._bucket

    @property
    def _cache(self) -> ObjectCache:
        return self._cache_here or ObjectCache(objects_dir(), 0)

    def _record_place(self, db: Connection, location: str) -> bool:
        """Record the place unless one is; return whether it is new. Of two that record one at once
        the first has it.
        """
        if self._bucket is not None:
            return False
        sql = "INSERT INTO settings (name, value) VALUES (:name, :value) ON CONFLICT DO NOTHING"
        # a folder of its own: two memories that share a bucket never delete each other's objects
        value = json.dumps({"location": location, "folder": uuid.uuid4().hex})
        return bool(db.execute(text(sql), {"name": ROW, "value": value}).rowcount)

    def _is_unmarked(self, bucket: Bucket) -> bool:
        """Return whether the marker is missing though objects are in use; where none is, a process
        may have died before it wrote the marker, which is written then.
        """
        if self._marked or bucket.is_there():
            self._marked = True
            return False
        with self._read() as db:
            used = db.execute(text("SELECT 1 FROM objects WHERE uses > 0 LIMIT 1")).first()
        if used is None:
            bucket.mark()
        return used is not None

    def _move_objects(self, place: Place, location: str) -> None:
        """Record another address of the same objects. Raises InvalidSetting where they are not
        there.
        """
        with self._read() as db:
            known = db.execute(text("SELECT 1 FROM objects LIMIT 1")).first()
        if known is None:
            Bucket(location, "")  # an address that cannot be used is refused now
        elif is_missing(location) or not Bucket(location, place.folder).is_there():
            raise InvalidSetting(
                f"objects={location!r}: the objects of this memory are in {place.location}, folder"
                f" {place.folder}: bring that folder there first, or copy the memory (`cmt copy`)"
                " to a new one with this setting"
            )
        self._refuse_read_only()
        with self._write() as db:
            value = json.dumps({"location": location, "folder": place.folder})
            self._set(db, ROW, value)
        self._bucket = None

    # -- names

    def _reserve_objects(self, db: Connection, names: Sequence[str]) -> dict[str, str]:
        """Reserve names; return a token for each that no process deletes now. A row of a process
        that has died while it deleted is free again.
        """
        sql = text("""INSERT INTO objects (name, uses, token, reserved_at)
            VALUES (:name, 0, :token, :now) ON CONFLICT (name) DO UPDATE SET
                reserved_at = CASE WHEN objects.taken_until >= :now THEN objects.reserved_at
                    ELSE :now END,
                token = CASE WHEN objects.taken_until < :now THEN :token ELSE objects.token END,
                taken_until = CASE WHEN objects.taken_until < :now THEN NULL
                    ELSE objects.taken_until END
            RETURNING token, taken_until""")
        values = {"token": uuid.uuid4().hex, "now": self.now().timestamp()}
        tokens = {}
        for name in names:
            row = db.execute(sql, values | {"name": name}).one()
            if row.taken_until is None:
                tokens[name] = row.token
        return tokens

    def _take_unused(self) -> tuple[float, list[str]] | None:
        """Take some unused objects to delete them; None where there are none."""
        now = self.now()
        values = {"now": now.timestamp(), "old": (now - AGE).timestamp()}
        until = now.timestamp() + LEASE_S
        with self._read() as db:
            sql = f"SELECT name FROM objects WHERE {UNUSED} ORDER BY name LIMIT {BATCH}"
            names = list(db.execute(text(sql), values).scalars())
        if not names:
            return None
        take = f"""UPDATE objects SET taken_until = :until WHERE name IN :names AND {UNUSED}
            RETURNING name"""
        with self._write_objects() as db:
            given = values | {"until": until, "names": names}
            taken = list(db.execute(_with_names(take), given).scalars())
        return (until, taken) if taken else None

    def _settle_objects(self, until: float, names: Sequence[str], change: str) -> None:
        sql = f"{change} WHERE name IN :names AND uses = 0 AND taken_until = :until"
        with self._write_objects() as db:
            db.execute(_with_names(sql), {"names": list(names), "until": until})

    def _note_unknown(self, bucket: Bucket) -> None:
        """Enter objects that the table does not know into it as unused, once they are AGE old."""
        old = self.now() - AGE
        sql = text("""INSERT INTO objects (name, uses, token) VALUES (:name, 0, :token)
            ON CONFLICT DO NOTHING""")
        for part in bucket.sizes():
            names = [{"name": n, "token": ""} for n, (_, made) in part.items() if made < old]
            if names:
                with self._write_objects() as db:
                    db.execute(sql, names)

    def _read_objects(self, references: Mapping[str, Reference]) -> dict[str, bytes | str]:
        """Return objects by name, from this machine's disk where they are there: the bytes, or what
        is wrong with one.
        """
        found: dict[str, bytes | str] = {}
        for name, reference in references.items():
            if (kept := self._cache.get(reference)) is not None:
                found[name] = kept
        missing = [r for name, r in references.items() if name not in found]
        if not missing:
            return found
        if (bucket := self._opened_bucket()) is None:
            fault = "the memory does not record where its objects are"
            return found | dict.fromkeys((r.name for r in missing), fault)
        for name, body in bucket.get(missing).items():
            if isinstance(body, bytes):
                self._cache.put(references[name], body)
                found[name] = body
            else:
                found[name] = f"object {bucket.address(name)} {body}"
        return found


def _references(db: Connection) -> dict[int, Reference]:
    """Return the references of all rows, by passage id."""
    sql = f"SELECT passage_id, data FROM memories WHERE length(data) = {SIZE}"
    found = {row.passage_id: Reference.of(row.data) for row in db.execute(text(sql))}
    return {passage: reference for passage, reference in found.items() if reference is not None}


def _with_names(sql: str) -> TextClause:
    return text(sql).bindparams(bindparam("names", expanding=True))
