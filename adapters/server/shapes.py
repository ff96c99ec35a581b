"""What goes over HTTP as pydantic models, which check requests and are made of the library's
values. Knows no route.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat, StrictBool

import cmt_sdk

TEXT = r"^[^\x00]*[^\s\x00-\x1f][^\x00]*$"  # not only white space, no NUL
SCOPE = r"^([^/\x00]+(/[^/\x00]+)*)?$"
Text = Annotated[str, Field(min_length=1, pattern=TEXT)]
Scope = Annotated[
    str,
    Field(
        pattern=SCOPE, max_length=500, description="Whose it is: a path of names, such as user/ann."
    ),
]
NamedScope = Annotated[Scope, Field(min_length=1)]  # what is read: an empty name is not everybody
Metadata = Annotated[dict[str, str | int | FiniteFloat | bool | None], Field(max_length=100)]
SearchMode = cmt_sdk.SearchMode
Reader = cmt_sdk.ReaderKind
Where = Annotated[
    dict[str, Any], Field(description='Conditions on metadata, such as {"year": {">=": 2020}}.')
]


class Value(BaseModel):
    """A value that goes out; made of the library's own."""

    model_config = ConfigDict(from_attributes=True)


class Fault(BaseModel):
    """What went wrong, in OpenAI's words."""

    message: str = Field(description="What is wrong, and what to do.")
    type: str = Field(
        description="`invalid_request_error`, `authentication_error` or `server_error`."
    )
    param: str | None = Field(None, description="Which part of the request, where it is one.")
    code: str | None = Field(None, description="The kind of error, such as `DocumentNotFound`.")


class Failure(BaseModel):
    """Every answer that is no success."""

    error: Fault


class SourceValue(Value):
    """A passage that was read for an answer: characters `start` to `end` of a document."""

    document_id: str
    passage_id: int
    source: str | None
    start: int
    end: int
    text: str
    score: float
    why: str = Field(description="The reasons for this source in a few words.")
    heading: str = Field(
        description="The headings under which the passage stands; empty where there are none."
    )
    rank: int = Field(description="Its place among the passages that fit the question, from 1.")
    holds_answer: bool = Field(description="Whether the words of the answer stand in it.")
    answer_start: int | None = Field(
        description="The character of the document where the answer's words begin, if they do."
    )
    answer_end: int | None = Field(description="The character behind the answer's words.")
    date: str | None = Field(
        description="The day that the document itself names, such as 2026-03-04."
    )
    updated_at: str | None = Field(
        description="When the document's text was last changed in the memory, in ISO 8601."
    )
    superseded_by: str | None = Field(
        description="The id of the document that says a newer value of the same thing."
    )


class NewDocument(BaseModel):
    """A text to remember."""

    text: Text
    source: str | None = Field(None, description="Where the text comes from.")
    scope: Scope = ""
    metadata: Metadata = {}
    expires_at: AwareDatetime | None = Field(None, description="When it stops being remembered.")
    id: str = Field("", max_length=200, description="Its id, where it shall not be made here.")
    wait: StrictBool = Field(
        True, description="Whether it is compressed before the answer, or in the background."
    )


class Change(BaseModel):
    """What shall be other than it is; what is left out stays. null takes a source or an expiry
    away.
    """

    text: Text | None = None
    source: str | None = None
    scope: Scope | None = None
    metadata: Metadata | None = None
    expires_at: AwareDatetime | None = None


class ForgetRequest(BaseModel):
    """Which documents are erased: every given condition must hold. At least one must be given; the
    scope "" is all.
    """

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    source: Annotated[str, Field(max_length=1000)] | None = Field(
        None, description="Only this source; * is a wildcard."
    )
    scope: Scope | None = None
    where: Where | None = None


class AskRequest(BaseModel):
    """A question, and how it is answered."""

    question: Text
    k: int | None = Field(None, ge=1, le=100, description="Passages to read (5).")
    reader: Reader = Field(
        "memory",
        description=(
            "What the model reads: memories; the passages' text; text where memory leaves it"
            " unsure; nothing."
        ),
    )
    scope: NamedScope | None = None
    where: Where | None = None
    max_tokens: int = Field(64, ge=1, le=4096, description="The longest answer, in tokens.")
    stream: StrictBool = Field(
        False,
        description="Whether the answer comes as server-sent events: `piece`s, then the `answer`.",
    )


class DocumentValue(Value):
    """A document. In lists its text is cut to 300 characters; `length` is that of the whole."""

    id: str
    source: str | None
    scope: str
    metadata: dict[str, Any]
    created_at: datetime | None
    updated_at: datetime | None
    expires_at: datetime | None
    version: int
    ready: bool = Field(description="False until it is compressed.")
    text: str
    length: int = Field(description="Characters of the whole text.")


class PassageValue(Value):
    """A passage: the unit that is compressed and found."""

    id: int
    ordinal: int
    start: int
    end: int
    tokens: int
    text: str
    heading: str
    ready: bool
    fidelity: float | None = Field(
        description="How much of it the model reads from its memory, in [0, 1]; null: not measured."
    )


class WholeDocument(DocumentValue):
    """A document with its whole text and its passages."""

    passages: list[PassageValue]


class PageValue(BaseModel):
    """One page of a list; `next_cursor` asks for the following one."""

    documents: list[DocumentValue]
    next_cursor: str | None


class Refused(BaseModel):
    """A file that could not be remembered, and why."""

    name: str
    message: str


class Taken(BaseModel):
    """What became of the files."""

    documents: list[DocumentValue]
    refused: list[Refused]


class ReceiptValue(Value):
    """Proof of forgetting: what went, and what a scan of every byte of the memory's files found
    left of it.
    """

    documents: list[str]
    versions: int
    passages: int
    bytes_freed: int
    files_scanned: list[str]
    traces_found: int
    complete: bool = Field(
        description="False while another process reads the state before; the rest is erased later."
    )
    at: datetime


class MatchValue(BaseModel):
    """A passage that fits a query."""

    document_id: str
    passage_id: int
    source: str | None
    scope: str
    start: int
    end: int
    text: str
    score: float
    why: str
    superseded_by: str | None = Field(
        description="The id of the document that says a newer value of the same thing."
    )


class Matches(BaseModel):
    """The passages that fit, best first."""

    matches: list[MatchValue]


class AnswerValue(Value):
    """An answer, its sources and its costs."""

    text: str
    sources: list[SourceValue] = Field(
        description="What was read: first the passage that the answer is from, then by rank."
    )
    reader: str
    abstained: bool = Field(description="True when the memory does not tell.")
    confidence: float
    prompt_tokens: int
    memory_tokens: int = Field(description="Source tokens that were read from memory.")
    answer_tokens: int
    milliseconds: dict[str, float]
    truncated: bool = Field(description="True when it ended at `max_tokens`.")


class PieceValue(BaseModel):
    """A piece of an answer."""

    text: str


class StatsValue(Value):
    """The memory in numbers."""

    documents: int
    versions: int
    passages: int
    pending: int
    cold: int
    tokens: int
    text_bytes: int
    memory_bytes: int
    file_bytes: int
    index: str
    model: str
    version: str = Field(description="Of cmt-sdk.")


class Health(BaseModel):
    """The server is there."""

    ok: bool


class Point(BaseModel):
    """A passage in the plane."""

    passage_id: int
    document_id: str
    source: str | None
    x: float = Field(description="In [-1, 1].")
    y: float = Field(description="In [-1, 1].")
    cluster: int = Field(description="Passages of like meaning have the same number, from 0.")
    label: str = Field(description="Its first words.")


class MapValue(BaseModel):
    """The memory in the plane."""

    points: list[Point]
    neighbours: dict[int, list[int]] = Field(
        description="To each passage the nearest ones, nearest first."
    )
