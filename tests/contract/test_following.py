"""A memory against a folder: files are written, moved, emptied, spoilt, put away with their folder,
and brought back.
"""

import os
import shutil
import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cmt_cli.guard import MANY_FILES
from cmt_cli.sync import Sync
from cmt_sdk.testing.fakes import open_fake
from cmt_sdk.types import Document

FOLDERS = ("one", "two", "two/deep")
names = st.sampled_from([f"{folder}/{name}.md" for folder in FOLDERS for name in "abc"])
texts = st.sampled_from(
    [
        f"The {thing} of the {place} is red."
        for thing in ("door", "roof", "boat")
        for place in ("mill", "inn", "port")
    ]
)
BINARY = b"\x89PNG\0"


class Quiet:
    """Hears of what happens, and says nothing."""

    def changed(self, change: str, source: str, **more: object) -> None:
        """See SyncReport."""

    def refuse(self, error: Exception, *, named: bool) -> None:
        """See SyncReport."""

    def warned(self, message: str) -> None:
        """See SyncReport."""


class Folder(RuleBasedStateMachine):
    """`self.files` holds what is on the disk, `self.away` folders that were put away with what was
    in them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp()).resolve()
        self.root = self.place / "notes"
        self.memory = open_fake(self.place / "memory")
        self.files: dict[str, str | None] = {}  # None: nothing that can be read
        self.away: set[str] = set()
        for folder in FOLDERS:
            (self.root / folder).mkdir(parents=True)
        # or the whole folder may be a drive that is away
        (self.root / "kept.md").write_text("This one stays.")

    def teardown(self) -> None:
        """The folder goes."""
        self.memory.close()
        shutil.rmtree(self.place)

    def is_away(self, name: str) -> bool:
        """Whether a file lies in a folder that was put away."""
        return any(name.startswith(f"{folder}/") for folder in self.away)

    def usable(self) -> list[str]:
        """The files that can be got at."""
        return [name for name in self.files if not self.is_away(name)]

    @initialize(some=st.dictionaries(names, texts, min_size=4, max_size=6))
    def begin(self, some) -> None:
        """Some files that are remembered."""
        for name, text in some.items():
            self.write(name, text)
        self.add()

    @rule(name=names, text=texts)
    def write(self, name, text) -> None:
        """A new file, or another text in one."""
        if not self.is_away(name):
            (self.root / name).write_text(text)
            self.files[name] = text

    @precondition(lambda self: self.usable())
    @rule(data=st.data(), to=names, text=st.none() | texts)
    def move(self, data, to, text) -> None:
        """To another place, sometimes over another file, sometimes edited at once."""
        name = data.draw(st.sampled_from(self.usable()))
        if self.is_away(to) or to == name:
            return
        (self.root / name).replace(self.root / to)
        self.files[to] = self.files.pop(name)
        if text:
            self.write(to, text)

    @precondition(lambda self: self.usable())
    @rule(data=st.data(), what=st.sampled_from(["empty", "spoil", "delete"]))
    def lose(self, data, what) -> None:
        """One file says nothing any more, cannot be read, or is gone."""
        name = data.draw(st.sampled_from(self.usable()))
        if what == "delete":
            (self.root / name).unlink()
            del self.files[name]
        else:
            (self.root / name).write_bytes(BINARY if what == "spoil" else b" \n")
            self.files[name] = None if what == "spoil" else ""

    @rule(folder=st.sampled_from(FOLDERS), leave=st.booleans())
    def put_away(self, folder, leave) -> None:
        """A drive is taken off: the folder is empty, or not there at all."""
        if folder in self.away or any(
            one.startswith(folder) or folder.startswith(one) for one in self.away
        ):
            return
        shutil.move(self.root / folder, self.place / folder.replace("/", "_"))
        if leave:
            (self.root / folder).mkdir()
            # a mount point is older than what is mounted there
            os.utime(self.root / folder, (0, 0))
        self.away.add(folder)
        self.watch()

    @precondition(lambda self: self.away)
    @rule(data=st.data())
    def bring_back(self, data) -> None:
        """It is there again, as it was."""
        folder = data.draw(st.sampled_from(sorted(self.away)))
        shutil.rmtree(self.root / folder, ignore_errors=True)
        shutil.move(self.place / folder.replace("/", "_"), self.root / folder)
        self.away.remove(folder)
        self.watch()

    @rule()
    def add(self) -> None:
        """As `cmt add`: nothing that is gone is taken out."""
        self.run(remove=False)
        self.every_file_has_its_document()

    @rule()
    def watch(self) -> None:
        """As `cmt watch --once`: what is gone is taken out, where its folder can be seen."""
        self.run(remove=True)
        self.every_file_has_its_document()
        for source in self.held():
            if source not in self.files and source != "kept.md":
                folder = Path(source).parent.as_posix()
                others = [name for name in self.usable() if name.startswith(f"{folder}/")]
                assert not others or len(self.held()) >= MANY_FILES, (
                    f"{source} is gone, and answers"
                )

    def run(self, *, remove: bool) -> None:
        """One run; a document whose file is in a folder that is away is there after it, if it was
        before.
        """
        away = {d.id for d in self.memory.documents() if self.is_away(self.name(d))}
        Sync(self.memory, "", Quiet(), lambda *_: False, remove=remove).run([self.root])
        assert away <= set(self.memory.ids()), "taken out while its folder was away"

    def name(self, document: Document) -> str:
        """A document's file, as `self.files` names it."""
        return Path(document.source or "").relative_to(self.root).as_posix()

    def held(self) -> dict[str, str]:
        """The documents' texts by their files."""
        return {self.name(d): d.text for d in self.memory.documents()}

    def every_file_has_its_document(self) -> None:
        """One and only one with its text; none where it is empty; the last one where it cannot be
        read.
        """
        count = Counter(d.source for d in self.memory.documents())
        assert max(count.values(), default=0) <= 1
        held = self.held()
        for name in self.usable():
            text = self.files[name]
            if text is not None:
                assert held.get(name, "") == text, name

    @invariant()
    def what_waits_is_whole(self) -> None:
        """Nothing is damaged on the way."""
        assert all(finding.ok for finding in self.memory.check())


Folder.TestCase.settings = settings(
    max_examples=15,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestFolder = Folder.TestCase
