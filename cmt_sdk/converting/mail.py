"""E-mail (eml, mbox) and saved web pages (mhtml) to text. Knows html as a form of a message.

Sender, receivers, date and subject stand above the text. Attached files are named, not read;
forwarded messages are part of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from email import message_from_bytes
from email.errors import MessageError
from email.header import decode_header, make_header
from email.message import Message
from email.utils import parsedate_to_datetime
from pathlib import Path

from cmt_sdk.converting.html import from_html
from cmt_sdk.converting.result import Converted, damaged
from cmt_sdk.converting.text import from_text
from cmt_sdk.errors import InvalidDocument

APPLE_SIZE = re.compile(rb"(\d{1,10}) *\n")  # the first line of a message that Apple Mail keeps
SHOWN = ("From", "To", "Cc", "Date", "Subject")
WEB_PAGE = "Snapshot-Content-Location"  # the field by which browsers mark a saved page
BROKEN = (
    MessageError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
    OverflowError,
)
# the line between two messages of a mailbox
SEPARATOR = re.compile(rb"(?:\A|\n\r?\n)From [^\r\n]*\r?\n(?=[!-9;-~]+:)")
# a soft line end, made by the sender's program; "-- " begins a signature
FLOWED = re.compile(r"(?<!^--)(?<=\S) \n(?!>)", re.MULTILINE)
MAX_FIELD_CHARACTERS = 2000  # of one field of the head
MAX_NAMED = 10  # attached files in one warning
DEEPEST = 30  # messages within messages


def from_mail(data: bytes, path: Path) -> Converted:
    """One message, or a web page that a browser saved as one.

    Raises:
        InvalidDocument: The message is damaged.
    """
    attached: list[str] = []
    if found := APPLE_SIZE.match(data):
        data = data[found.end() : found.end() + int(found[1])]
    try:
        message = message_from_bytes(data)
        page = _web_page(message, path)
        if page is not None:
            return page
        text = "\n\n".join(filter(None, _written(message, path, attached, 0)))
        subject = _field(message, "Subject")
    except BROKEN as error:
        raise damaged(path, error) from error
    return Converted(text, {"title": subject} if subject else {}, _named(attached))


def from_mailbox(data: bytes, path: Path) -> Converted:
    """All messages of a mailbox, each under its subject.

    Raises:
        InvalidDocument: The mailbox is damaged.
    """
    attached: list[str] = []
    texts: list[str] = []
    try:
        starts = [match.end() for match in SEPARATOR.finditer(data)]
        ends = [match.start() for match in SEPARATOR.finditer(data)][1:]
        for start, end in zip(starts, [*ends, len(data)], strict=True):
            message = message_from_bytes(data[start:end])
            heading = _field(message, "Subject")
            parts = [f"## {heading}"] if heading else []
            texts.append("\n\n".join(filter(None, [*parts, *_written(message, path, attached, 0)])))
    except BROKEN as error:
        raise damaged(path, error) from error
    return Converted("\n\n".join(text for text in texts if text), {}, _named(attached))


def _named(attached: list[str]) -> list[str]:
    if not attached:
        return []
    more = ", ..." if len(attached) > MAX_NAMED else ""
    return [
        f"attached files are not read ({', '.join(attached[:MAX_NAMED])}{more}): save and add them"
    ]


def _field(message: Message, name: str) -> str:
    """A field of the head, its encoded words decoded."""
    value = message.get(name)
    if value is None:
        return ""
    value = str(value)[:MAX_FIELD_CHARACTERS]
    try:
        return " ".join(str(make_header(decode_header(value))).split())
    except (LookupError, UnicodeError, MessageError, ValueError):
        return " ".join(value.encode("ascii", "replace").decode().split())


def _date(message: Message) -> str:
    """The date as the sender's clock showed it."""
    written = _field(message, "Date")
    try:
        return parsedate_to_datetime(written).isoformat(" ", "minutes")[:16]
    except (ValueError, TypeError, IndexError, OverflowError):
        return written


def _written(message: Message, path: Path, attached: list[str], depth: int) -> Iterator[str]:
    """The head of a message, its text, and the messages that it forwards."""
    if depth > DEEPEST:
        raise RecursionError(f"it holds messages within messages more than {DEEPEST} deep")
    fields = [(name, _date(message) if name == "Date" else _field(message, name)) for name in SHOWN]
    head = "\n".join(f"{name}: {value}" for name, value in fields if value)
    if head:
        yield head
    yield from _body(message, path, attached, depth)


def _body(part: Message, path: Path, attached: list[str], depth: int) -> Iterator[str]:
    """The text of a part; of several forms of one text, the plain one, or else the best."""
    if depth > DEEPEST:
        raise RecursionError(f"its parts are nested more than {DEEPEST} deep")
    kind = part.get_content_type()
    payload = part.get_payload() if part.is_multipart() else []
    parts = [inner for inner in payload if isinstance(inner, Message)]
    if kind == "message/rfc822":
        for inner in parts:
            yield from _written(inner, path, attached, depth + 1)
    elif kind == "multipart/alternative":
        forms = ("\n\n".join(_body(inner, path, attached, depth + 1)) for inner in parts)
        yield next((form for form in forms if form.strip()), "")
    elif parts:
        for inner in parts:
            yield from _body(inner, path, attached, depth + 1)
    elif kind in ("text/plain", "text/html") and not _is_attached(part):
        yield _text(part, path)
    elif (
        part.get_content_maintype() not in ("image", "multipart") or part.get("Content-ID") is None
    ):
        attached.append(_plain(part.get_filename()) or kind)


def _is_attached(part: Message) -> bool:
    return part.get_filename() is not None or part.get_content_disposition() == "attachment"


def _plain(name: str | None) -> str:
    """A file's name, its encoded words decoded."""
    try:
        return str(make_header(decode_header(name or "")))
    except (LookupError, UnicodeError, MessageError, ValueError):
        return name or ""


def _text(part: Message, path: Path) -> str:
    """The text of a part that is text or html."""
    payload = part.get_payload(decode=True)
    data = payload if isinstance(payload, bytes) else b""
    charset = part.get_content_charset()
    try:
        data = data.decode(charset or "utf-8").encode()
    except (LookupError, UnicodeError):
        charset = None
    if not data.strip():
        return ""
    try:
        if part.get_content_type() == "text/html":
            return from_html(data, path).text.strip()
        text = from_text(data, path).text.strip()
    except InvalidDocument:
        return ""
    if part.get_param("format") == "flowed":
        text = FLOWED.sub(" ", text)
    return text


def _web_page(message: Message, path: Path) -> Converted | None:
    """The main page of a page saved with its pictures; None for a message."""
    is_page = message.get(WEB_PAGE) is not None or message.get("From", "").lower().startswith(
        "<saved by"
    )
    if not (is_page or path.suffix.lower() in (".mht", ".mhtml")):
        return None
    pages = (
        part
        for part in message.walk()
        if part.get_content_type() in ("text/html", "application/xhtml+xml")
    )
    page = next(pages, None)
    payload = page.get_payload(decode=True) if page is not None else None
    if page is None or not isinstance(payload, bytes):
        return None
    charset = page.get_content_charset()
    try:
        payload = payload.decode(charset or "utf-8").encode()
    except (LookupError, UnicodeError):
        return from_html(payload, path)
    converted = from_html(payload, path)
    title = converted.metadata.get("title") or _field(message, "Subject")
    return Converted(
        converted.text,
        {**converted.metadata, **({"title": title} if title else {})},
        converted.left_out,
    )
