"""Chooses the files of a folder to read. Knows suffixes and names, no contents.

Hidden files, lock files and other files that programs leave behind are left out silently. Files
that a person might miss are counted and named once: files of other kinds, files that ignore files
name, files in a cloud, links.
No link is followed: the sender of a folder could have a file of the reader's own remembered.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cmt_sdk.errors import InvalidSetting, StorageDenied

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

Report = Callable[[str], None]

TEMPORARY = re.compile(
    r"~\$.*|\.~lock\..*#|#.*#|.*~|.*\.(?:tmp|temp|swp|swo|bak|orig|crdownload|part|partial|download|lock|lck)"
    r"|thumbs\.db|ehthumbs\.db|desktop\.ini|icon\r",
    re.IGNORECASE,
)  # lock files, partial downloads and copies that programs leave next to a document
SYSTEM_FOLDERS = frozenset(
    {"__pycache__", "__macosx", "$recycle.bin", "system volume information", "lost+found"}
)
IGNORE_FILES = (".gitignore", ".ignore")  # the second is that of ripgrep and other search programs
MAX_IGNORE_FILE_BYTES = 1_000_000
LOCKED_VERSIONS = frozenset(
    {
        "package-lock.json",
        "npm-shrinkwrap.json",
        "packages.lock.json",
        "deno.lock",
        "composer.lock",
        "project.assets.json",
    }
)  # files of package managers that have a suffix that is read
MADE_FOLDERS = {
    "node_modules": (),
    "bower_components": (),
    "vendor": ("go.mod", "composer.json", "Gemfile"),
    "target": ("Cargo.toml", "pom.xml", "build.sbt"),
    "build": (
        "package.json",
        "pyproject.toml",
        "setup.py",
        "build.gradle",
        "build.gradle.kts",
        "CMakeLists.txt",
        "pubspec.yaml",
    ),
    "dist": ("package.json", "pyproject.toml", "setup.py"),
    "out": ("package.json", "build.gradle", "tsconfig.json"),
    "bin": (".csproj", ".sln", ".fsproj"),
    "obj": (".csproj", ".sln", ".fsproj"),
    "Pods": ("Podfile",),
    "coverage": ("package.json",),
    "bak": ("config.edn",),
    # folders that a tool fills, and the files (or suffixes) next to them that show the tool; () for
    # always
}
MADE_MARKS = frozenset({"CACHEDIR.TAG", "pyvenv.cfg", "conda-meta"})  # in such a folder
PLACEHOLDERS = (".icloud", ".nextcloud", ".owncloud", ".cloud")  # suffixes of stand-ins
OFFLINE = 0x1000 | 0x40000 | 0x400000  # Windows: OFFLINE, RECALL_ON_OPEN, RECALL_ON_DATA_ACCESS
DATALESS = 0x40000000  # macOS: SF_DATALESS
MAX_NAMED = 6  # kinds or names in one message
MAX_OTHERS = 3  # names of files of other kinds


def walk(
    folder: Path,
    suffixes: Collection[str],
    exclude: Sequence[str],
    report: Report,
    known: Collection[Path] = (),
) -> Iterator[Path]:
    """The files of these suffixes beneath a folder, sorted.

    Args:
        folder: The folder to search.
        suffixes: In lower case, with the dot.
        exclude: Patterns as in a .gitignore file.
        report: Called with a sentence on skipped files.
        known: Files and folders that do not count as skipped files of other kinds.

    Raises:
        StorageDenied: The folder itself cannot be read.
        InvalidSetting: A pattern is malformed.
    """
    patterns = _spec([_beneath(pattern, folder) for pattern in exclude])
    yield from _Walk(folder, suffixes, patterns, report, known).files()


def is_placeholder(path: str | os.PathLike[str], suffixes: Collection[str]) -> bool:
    """True for a file that stands for one in a cloud.

    Reading it downloads that file, or gives nothing.
    """
    path = Path(path)
    try:
        found = path.lstat()
    except (OSError, ValueError):
        return False
    if path.suffix in PLACEHOLDERS and path.with_suffix("").suffix.lower() in suffixes:
        return True
    return bool(
        getattr(found, "st_file_attributes", 0) & OFFLINE
        or getattr(found, "st_flags", 0) & DATALESS
    )


def _beneath(pattern: str, folder: Path) -> str:
    """A pattern of `exclude` as it stands in an ignore file; people also give paths."""
    pattern = pattern.replace(os.sep, "/")
    for start in (
        folder,
        Path(os.path.abspath(folder)),  # noqa: PTH100 - without links
        folder.resolve(),
    ):
        inside = pattern.removeprefix(f"{start.as_posix().rstrip('/')}/")
        if inside != pattern:
            return f"/{inside}"
    return pattern.removeprefix("./")


def _spec(lines: Sequence[str]) -> GitIgnoreSpec:
    from pathspec import GitIgnoreSpec
    from pathspec.patterns.gitignore import GitIgnorePatternError

    try:
        return GitIgnoreSpec.from_lines(lines)
    except GitIgnorePatternError as error:
        raise InvalidSetting(
            f"exclude={list(lines)!r:.200}: {error}; give patterns as in a .gitignore file"
        ) from error


@dataclass(slots=True)
class _Rules:
    """The patterns of one folder's ignore files, for all that is beneath it.

    `folder` and all paths are absolute; the path of a folder ends with a slash.
    """

    folder: str
    spec: GitIgnoreSpec

    def verdict(self, path: str) -> bool | None:
        """True for a path that a pattern names, False where "!" takes it back, None for others."""
        relative = path.removeprefix(self.folder).replace(os.sep, "/").lstrip("/")
        return self.spec.check_file(relative).include


@dataclass(slots=True)
class _Passed:
    """The files skipped in one folder and beneath it."""

    kinds: Counter[str] = field(default_factory=Counter)
    others: list[str] = field(default_factory=list)  # the names of the first of these
    ignored: int = 0
    made: list[str] = field(default_factory=list)
    clouds: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)  # to folders
    file_links: list[str] = field(default_factory=list)  # out of the folder

    def phrases(self) -> Iterator[str]:
        """A sentence for each kind of skipped file."""
        if self.kinds:
            found = [
                f"{count} {kind or 'without a suffix'}" for kind, count in self.kinds.most_common()
            ]
            such = "such as " if self.kinds.total() > len(self.others) else ""
            named = f"{such}{', '.join(self.others)}; a text file is read where it is named itself"
            yield f"{_files(self.kinds.total())} of other kinds ({_listed(found)}): {named}"
        if self.ignored:
            what = "file or folder" if self.ignored == 1 else "files and folders"
            yield f"{self.ignored:,} {what} that .gitignore or .ignore names"
        if self.made:
            yield f"folders that programs fill ({_listed(self.made)})"
        if self.clouds:
            yield (
                f"{_files(len(self.clouds))} whose contents lie in a cloud, not on this disk"
                f" ({_listed(self.clouds)})"
            )
        if self.links:
            what = (
                "1 link to a folder"
                if len(self.links) == 1
                else f"{len(self.links):,} links to folders"
            )
            yield f"{what} ({_listed(self.links)}): add the folders themselves"
        if self.file_links:
            count = len(self.file_links)
            what = (
                "1 link to a file elsewhere"
                if count == 1
                else f"{count:,} links to files elsewhere"
            )
            yield (
                f"{what} ({_listed(self.file_links)}): links are not followed out of a folder; add"
                " the files themselves"
            )


def _files(count: int) -> str:
    return "1 file" if count == 1 else f"{count:,} files"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:MAX_NAMED]) + (", ..." if len(names) > MAX_NAMED else "")


class _Walk:
    """One walk through a folder."""

    def __init__(
        self,
        top: Path,
        suffixes: Collection[str],
        exclude: GitIgnoreSpec,
        report: Report,
        known: Collection[Path],
    ) -> None:
        self._top = top
        self._suffixes = suffixes
        self._exclude = _Rules(os.path.abspath(top), exclude)  # noqa: PTH100
        self._report = report
        self._known = known
        self._passed = _Passed()

    def files(self) -> Iterator[Path]:
        above = [rules for rules in map(_rules_of, _above(self._top)) if rules is not None]
        if any(rules.verdict(f"{os.path.abspath(self._top)}/") for rules in above):  # noqa: PTH100
            above = []  # the folder was named: it is read though an ignore file names it
        yield from self._beneath(self._top, above)
        if phrases := list(self._passed.phrases()):
            self._report(f"in {self._top}: {'; '.join(phrases)}")

    def _beneath(self, folder: Path, rules: Sequence[_Rules]) -> Iterator[Path]:
        """The files of a folder, then those of its folders. Not recursive: trees can be deep."""
        pending = [(folder, rules)]
        while pending:
            folder, rules = pending.pop()
            entries = self._entries(folder)
            own = _rules_of(folder)
            rules = [*rules, own] if own is not None else rules
            names = {entry.name for entry in entries}
            below: list[Path] = []
            for entry in entries:
                path = folder / entry.name
                if not _is_folder(entry):
                    if self._takes_file(path, rules, is_link=entry.is_symlink()):
                        yield path
                elif self._takes_folder(path, names, rules, is_link=entry.is_symlink()):
                    below.append(path)
            pending += [(path, rules) for path in reversed(below)]

    def _entries(self, folder: Path) -> list[os.DirEntry[str]]:
        """The entries of a folder, sorted; none, with a report, for a closed one."""
        try:
            with os.scandir(folder) as found:
                return sorted(found, key=lambda entry: entry.name)
        except OSError as error:
            if folder == self._top:
                raise StorageDenied(f"{folder} cannot be read: {error.strerror}") from error
            self._report(f"{folder} cannot be read: {error.strerror}")
            return []

    def _takes_folder(
        self, path: Path, siblings: Collection[str], rules: Sequence[_Rules], *, is_link: bool
    ) -> bool:
        if (
            path.name.startswith(".")
            or path.name.lower() in SYSTEM_FOLDERS
            or self._is_ignored(f"{path}/", rules)
        ):
            return False
        if is_link:
            if not self._is_read_elsewhere(path):
                self._passed.links.append(str(path))
            return False
        if _is_made(path, siblings):
            self._passed.made.append(path.relative_to(self._top).as_posix())
            return False
        return True

    def _takes_file(self, path: Path, rules: Sequence[_Rules], *, is_link: bool) -> bool:
        suffix = path.suffix.lower()
        if is_placeholder(path, self._suffixes):
            self._passed.clouds.append(path.name)
            return False
        if (
            path.name.startswith(".")
            or TEMPORARY.fullmatch(path.name)
            or path.name.lower() in LOCKED_VERSIONS
        ):
            return False
        if self._is_ignored(str(path), rules) or _is_special(path):
            return False
        if suffix not in self._suffixes:
            if not any(known in self._known for known in (path, *path.parents)):
                self._passed.kinds[suffix.removeprefix(".")] += 1
                if len(self._passed.others) < MAX_OTHERS:
                    self._passed.others.append(path.relative_to(self._top).as_posix())
            return False
        if not is_link or not os.path.exists(path):  # noqa: PTH110 - Path's raises in a closed folder; reading it names it
            return True
        if not self._is_read_elsewhere(path):
            self._passed.file_links.append(path.relative_to(self._top).as_posix())
        return False

    def _is_ignored(self, path: str, rules: Sequence[_Rules]) -> bool:
        """True where a pattern names the path; the nearest ignore file with a verdict counts."""
        path = os.path.abspath(path) + "/" * path.endswith("/")  # noqa: PTH100 - without resolving links
        if self._exclude.verdict(path):
            return True
        for rule in reversed(rules):
            verdict = rule.verdict(path)
            if verdict is not None:
                self._passed.ignored += verdict
                return verdict
        return False

    def _is_read_elsewhere(self, link: Path) -> bool:
        """True for a link to something beneath the same folder, which is read where it is."""
        top = os.path.realpath(self._top)
        target = os.path.realpath(link)
        if not os.path.lexists(target):
            return False
        return Path(target).is_relative_to(top)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _above(folder: Path) -> list[Path]:
    """The folders above a folder in the same git repository, the uppermost first."""
    if os.path.lexists(folder / ".git"):
        return []
    parents = list(Path(os.path.abspath(folder)).parents)  # noqa: PTH100 - without links, as the paths beneath it
    for index, parent in enumerate(parents):
        if os.path.lexists(parent / ".git"):
            return parents[index::-1]
    return []


def _rules_of(folder: Path) -> _Rules | None:
    """The patterns of a folder's own ignore files; None where it has none."""
    lines: list[str] = []
    for name in IGNORE_FILES:
        file = folder / name
        try:
            found = file.lstat()  # no link, no pipe and no device: those may never end
            if stat.S_ISREG(found.st_mode) and found.st_size <= MAX_IGNORE_FILE_BYTES:
                lines += file.read_text("utf-8", "replace").splitlines()
        except (OSError, ValueError):
            continue
    absolute = os.path.abspath(folder)  # noqa: PTH100
    return _Rules(absolute, _lenient(lines)) if lines else None


def _lenient(lines: Sequence[str]) -> GitIgnoreSpec:
    """The patterns of an ignore file; git, too, passes over a line that is no pattern."""
    from pathspec import GitIgnoreSpec

    good: list[str] = []
    for line in lines:
        try:
            GitIgnoreSpec.from_lines([line])
        except ValueError:
            continue
        good.append(line)
    return GitIgnoreSpec.from_lines(good)


def _is_made(folder: Path, siblings: Collection[str]) -> bool:
    """True for a folder that a program can fill again: a cache, installed packages, a build."""
    marks = MADE_FOLDERS.get(folder.name)
    if marks is not None and (not marks or any(name.endswith(marks) for name in siblings)):
        return True
    return any(os.path.lexists(folder / mark) for mark in MADE_MARKS)


def _is_special(path: Path) -> bool:
    """True for pipes, sockets and devices, which could block a read for ever."""
    return os.path.exists(path) and not os.path.isfile(path)  # noqa: PTH110, PTH113 - Path's raise in a closed folder
