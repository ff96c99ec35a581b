"""Subtitles (srt, vtt) to spoken text, with the time after each pause. Knows no other format."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path

from cmt_sdk.converting.result import Converted
from cmt_sdk.converting.text import from_text

TIMES = re.compile(
    r"\s*(?:(\d+):)?(\d{1,2}):(\d{2})[.,](\d{3})\s+-->\s+(?:(\d+):)?(\d{1,2}):(\d{2})[.,](\d{3}).*"
)
SPEAKER = re.compile(r"<v(?:\.[^\s>]*)?\s+([^>]+)>")
TAG = re.compile(r"</?[a-zA-Z0-9][^>]{0,200}>|\{\\[^}]{0,200}\}")
BLOCKS = ("NOTE", "STYLE", "REGION")  # blocks of vtt that are no cues
PAUSE = 3.0  # seconds of silence that end a paragraph
MAX_PARAGRAPH_SECONDS = 60.0  # after which the next cue begins a paragraph in any case


def from_subtitles(data: bytes, path: Path) -> Converted:
    """The spoken text in paragraphs, each behind the time at which it begins."""
    converted = from_text(data, path)
    paragraphs: list[str] = []
    began = ended = float("-inf")
    last = ""
    for block in re.split(r"\n\s*\n", converted.text):
        lines = block.strip("\ufeff\n").split("\n")
        at = next((i for i, line in enumerate(lines) if TIMES.fullmatch(line)), None)
        if at is None:
            if block.strip() and not block.strip().startswith(("WEBVTT", *BLOCKS)):
                paragraphs.append(block.strip())
            continue
        found = TIMES.fullmatch(lines[at])
        start = _seconds(found, 1)
        end = _seconds(found, 5)
        text = " ".join(filter(None, map(_spoken, lines[at + 1 :])))
        if not text or text == last:
            continue  # transcripts that roll repeat a line
        last = text
        if start - ended > PAUSE or start - began > MAX_PARAGRAPH_SECONDS or SPEAKER.search(block):
            paragraphs.append(f"[{_clock(start)}] {text}")
            began = start
        else:
            paragraphs[-1] += f" {text}"
        ended = end
    return Converted("\n\n".join(paragraphs), left_out=converted.left_out)


def _spoken(line: str) -> str:
    line = SPEAKER.sub(r"\1: ", line)
    return " ".join(unescape(TAG.sub("", line)).split())


def _seconds(found: re.Match[str] | None, group: int) -> float:
    if found is None:
        return 0.0
    hours, minutes, seconds, thousandths = (int(found[group + i] or 0) for i in range(4))
    return 3600 * hours + 60 * minutes + seconds + thousandths / 1000


def _clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
