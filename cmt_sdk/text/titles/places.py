"""The names in a source: that of the file or page, and those of the meaningful folders.

Pure: the form of a path decides, never the contents of this disk, so that a file has one name,
however it is added. Knows no document.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from unicodedata import normalize
from urllib.parse import unquote, urlsplit

from cmt_sdk.text.titles.names import (
    dates_in,
    is_telling,
    iso,
    readable,
    says,
    split_camel,
    stands_for_its_folder,
)

# The folders in which systems put people's files; earlier parts of a path have no meaning.
BEFORE = re.compile(
    r"""/(?: (?:(?:mnt|cygdrive)/[a-z]/)?(?:home|Users)/[^/]+ | (?:Volumes|mnt)/[^/]+
    | (?:run/)?media/[^/]+/[^/]+ | storage/emulated/\d+ | data/data/[^/]+/files/home | [^/]+
    )(?=/)""",
    re.X,
)
TEMPORARY = re.compile(
    r"(?:/private)?/(?:tmp|var/tmp|var/folders/[^/]+/[^/]+/T)(?=/)(?:/[^/ ]+(?=/))?"
)
PROFILE = re.compile(r"/(?:Users|Documents and Settings)/[^/]+(?=/)", re.I)
SHARE = re.compile(r"^(?:[A-Za-z]:|[\\/]{2}[^\\/]+[\\/][^\\/]+)")
NUMBERED = re.compile(r"^\S*[A-Za-z_-]\d+$")  # as programs number temporary folders
# The folders that systems and programs make, in the words of common languages.
MADE = frozenset(
    """documents|my documents|mobile documents|dokumente|documenti|documentos|dokumenty|documenten
    |dokumenter|dokument|asiakirjat|belgeler|документы|документи|文档|文稿|文件|我的文档|書類|ドキュメント|문서
    |desktop|schreibtisch|bureau|escritorio|scrivania|área de trabalho|pulpit|рабочий стол|桌面
    |デスクトップ|downloads|download|téléchargements|descargas|scaricati|transferências|pobrane
    |загрузки|下载|下載|ダウンロード|다운로드|appdata|local|roaming|temp|tmp|library|cloudstorage
    |dropbox|onedrive|google drive|my drive|meine ablage|mon drive|mi unidad|icloud drive|nextcloud
    |owncloud|syncthing|sync|public|shared|share|src|var|data|srv|opt|workspace|github""".replace(
        "\n    ", ""
    ).split("|")
)
# The folders that programs make for all notes.
FOR_NOTES = frozenset({"notes", "vault", "obsidian vault", "obsidian", "pages", "journals"})
SUFFIX = re.compile(r"(?<=[^/\s])\.(?=\w*[^\W\d])[A-Za-z0-9]{1,10}$")
DRIVE = re.compile(r"[A-Za-z]:[\\/]|\\\\")
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
NEAREST = 3  # folders
MONTH = re.compile(r"(\d{1,2})(?!\d)")


@dataclass(frozen=True, slots=True)
class Place:
    """The `name` of a source's file, and its `folders`, the outermost first.

    `spelled` is the file's name as written, where that differs in more than its signs.
    """

    name: str = ""
    folders: tuple[str, ...] = ()
    spelled: str = ""


def place_of(source: str) -> Place:
    """The names in a source; empty for a source that is no path, address or file name."""
    above, last, is_first = _parts(normalize("NFC", source))
    stem = SUFFIX.sub("", last)
    name, above = _date(above, stem)
    if not name and not stands_for_its_folder(stem):
        name = readable(stem)
    folders = _telling(above, is_first)
    if not folders and not any(map(str.isalpha, name)):  # then even one plain word says more
        folders = [f for f in map(readable, above[-1:]) if f]
    folders = [f for f in dict.fromkeys(folders) if not (says(name, f) or _is_month(f, name))]
    read = split_camel(name)
    return Place(read, tuple(folders[-NEAREST:]), name if name != read else "")


def _parts(source: str) -> tuple[list[str], str, bool]:
    """The folders of a path, its last part, and whether the first may be the folder of all files.

    They are empty where the source is something else: a key, a device, an id.
    """
    if source.startswith(("/proc/", "/dev/", "<")):
        return [], "", False
    if "://" in source:
        return _of_address(source)
    if DRIVE.match(source):
        path = SHARE.sub("", source).replace("\\", "/")
        return _beneath(path[len(found[0]) :] if (found := PROFILE.match(path)) else path)
    if SCHEME.match(source) and " " not in source:
        return [], "", False
    path = source.replace("\\", "/") if "/" not in source else source
    if path.startswith("/"):
        return _beneath_root(path)
    *folders, last = [p for p in path.split("/") if p not in ("", ".", "..", "~")] or [""]
    if not (SUFFIX.search(last) or " " in last):
        return [], "", False  # a key, such as "chat" or "squad/5a3f"
    return [f for f in folders if not _is_made(f)], last, False


def _beneath_root(path: str) -> tuple[list[str], str, bool]:
    """An absolute path without the folders in which a system puts people's files."""
    if found := TEMPORARY.match(path):
        folders, last, is_first = _beneath(path[found.end() :])
        return [f for f in folders if not NUMBERED.search(f)], last, is_first
    found = BEFORE.match(path)
    return _beneath(path[found.end() :] if found else path)


def _beneath(path: str) -> tuple[list[str], str, bool]:
    *folders, last = [p for p in path.split("/") if p] or [""]
    places = [n for n, f in enumerate(folders) if f.casefold() in FOR_NOTES]
    inside = folders[places[-1] + 1 :] if places else folders
    return [f for f in inside if not _is_made(f)], last, not places


def _of_address(source: str) -> tuple[list[str], str, bool]:
    try:
        address = urlsplit(source)
    except ValueError:
        return [], "", False
    path = unquote(address.path)
    if address.scheme == "file":
        return _parts(path[1:] if DRIVE.match(path[1:]) else path)
    return [], path.rstrip("/").rpartition("/")[2], False


def _is_made(folder: str) -> bool:
    """True for a folder that a system, a program or a service makes."""
    name = folder.casefold()
    return (
        name in MADE | FOR_NOTES or name.startswith(("onedrive", ".")) or "~" in name or "@" in name
    )


def _telling(folders: list[str], is_first: bool) -> list[str]:
    """The folders with meaning; that of all files only where its name has one."""
    skipped = 1 if is_first and folders and not is_telling(folders[0]) else 0
    return [f for f in map(readable, folders[skipped:]) if f]


def _is_month(folder: str, name: str) -> bool:
    """True for the folder of the month in which the date of a name lies."""
    month = MONTH.match(folder)
    return bool(month and any(int(d[5:7]) == int(month[1]) for d in dates_in(name)))


def _date(folders: list[str], stem: str) -> tuple[str, list[str]]:
    """The date that folders and name make together, such as 2026/03/04, and the other folders."""
    for count, numbers in (
        (2, [*folders[-2:], stem]),
        (1, [*folders[-1:], *re.split(r"[-_.]", stem)]),
        (1, [*re.split(r"[-_.]", "".join(folders[-1:])), stem]),
    ):
        if len(numbers) != 3 or not re.fullmatch(r"\d{4}", numbers[0]):
            continue
        month = MONTH.match(numbers[1])
        day = re.fullmatch(r"\d{1,2}", numbers[2])
        if month and day and (found := iso(numbers[0], month[1], day[0])):
            return found, folders[:-count]
    return "", folders
