"""Schemas of /api: pydantic models that check requests and convert the library's values."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, FiniteFloat, StrictBool

import cmt_sdk

TEXT = r"^[^\x00]*[^\s\x00-\x1f][^\x00]*$"  # not only white space, and no NUL
SCOPE = r"^([^/\x00]+(/[^/\x00]+)*)?$"
Text = Annotated[str, Field(min_length=1, pattern=TEXT)]
Scope = Annotated[
    str,
    Field(pattern=SCOPE, max_length=500, description="Namespace path, such as user/ann."),
]
NamedScope = Annotated[Scope, Field(min_length=1)]  # for reading: an empty scope must not mean all
Metadata = Annotated[dict[str, str | int | FiniteFloat | bool | None], Field(max_length=100)]
SearchMode = cmt_sdk.SearchMode
Reader = cmt_sdk.ReaderKind
Where = Annotated[
    dict[str, Any], Field(description='Conditions on metadata, such as {"year": {">=": 2020}}.')
]


class ResponseValue(BaseModel):
    """A value of a response, made from a value of the library."""

    model_config = ConfigDict(from_attributes=True)


class Fault(BaseModel):
    """An error, in the form of OpenAI's API."""

    message: str = Field(description="The error and its remedy.")
    type: str = Field(
        description="`invalid_request_error`, `authentication_error` or `server_error`."
    )
    param: str | None = Field(None, description="The part of the request that is wrong, if any.")
    code: str | None = Field(None, description="The kind of error, such as `DocumentNotFound`.")


class Failure(BaseModel):
    """The response for every error."""

    error: Fault


class SourceValue(ResponseValue):
    """A passage that was read for an answer: characters `start` to `end` of a document."""

    document_id: str
    passage_id: int
    source: str | None
    start: int
    end: int
    text: str
    score: float
    why: str = Field(description="The reasons for this source, in a few words.")
    heading: str = Field(description="The headings above the passage; empty if there are none.")
    rank: int = Field(description="Its rank among the passages that match the question, from 1.")
    holds_answer: bool = Field(description="Whether the passage holds the words of the answer.")
    answer_start: int | None = Field(
        description="The character of the document where the answer begins, if it is there."
    )
    answer_end: int | None = Field(description="The character after the answer.")
    date: str | None = Field(description="The day that the document names, such as 2026-03-04.")
    updated_at: str | None = Field(
        description="When the document's text was last changed in the memory, in ISO 8601."
    )
    superseded_by: str | None = Field(
        description="The id of the document with a newer value of the same fact."
    )


class NewDocument(BaseModel):
    """A text to remember."""

    text: Text
    source: str | None = Field(None, description="Where the text comes from.")
    scope: Scope = ""
    metadata: Metadata = {}
    expires_at: AwareDatetime | None = Field(None, description="When the document expires.")
    id: str = Field("", max_length=200, description="Its id; the default is a generated one.")
    wait: StrictBool = Field(
        True, description="Whether to compress before the response, not in the background."
    )


class DocumentChange(BaseModel):
    """Changes of a document; fields that are left out stay. null removes a source or an expiry."""

    text: Text | None = None
    source: str | None = None
    scope: Scope | None = None
    metadata: Metadata | None = None
    expires_at: AwareDatetime | None = None


class ForgetRequest(BaseModel):
    """Which documents to erase: all given conditions must hold, and one is required.

    The scope "" selects all documents.
    """

    model_config = ConfigDict(json_schema_extra={"minProperties": 1})

    source: Annotated[str, Field(max_length=1000)] | None = Field(
        None, description="Only this source; * is a wildcard."
    )
    scope: Scope | None = None
    where: Where | None = None


class AskRequest(BaseModel):
    """A question and the options of its answer."""

    question: Text
    k: int | None = Field(None, ge=1, le=100, description="Passages to read (5).")
    reader: Reader = Field(
        "memory",
        description=(
            "memory: read compressed passages; text: read their text; auto: read the text if the"
            " answer from memory is unsure; none: read nothing."
        ),
    )
    scope: NamedScope | None = None
    where: Where | None = None
    max_tokens: int = Field(64, ge=1, le=4096, description="Maximum tokens of the answer.")
    stream: StrictBool = Field(
        False,
        description="Whether the answer comes as server-sent events: `piece`s, then the `answer`.",
    )


class DocumentValue(ResponseValue):
    """A document. In lists its text has at most 300 characters; `length` is the full length."""

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
    length: int = Field(description="Characters of the complete text.")


class PassageValue(ResponseValue):
    """A passage: the unit of compression and search."""

    id: int
    ordinal: int
    start: int
    end: int
    tokens: int
    text: str
    heading: str
    ready: bool
    fidelity: float | None = Field(
        description="How much of it the model reads from memory, in [0, 1]; null: not measured."
    )


class FullDocument(DocumentValue):
    """A document with its complete text and its passages."""

    passages: list[PassageValue]


class PageValue(BaseModel):
    """One page of a list; `next_cursor` gets the next page."""

    documents: list[DocumentValue]
    next_cursor: str | None


class RejectedFile(BaseModel):
    """A file that could not be stored, and why."""

    name: str
    message: str


class UploadResult(BaseModel):
    """The result of an upload."""

    documents: list[DocumentValue]
    refused: list[RejectedFile]


class ReceiptValue(ResponseValue):
    """Proof of an erasure: what was erased, and the traces that a scan of all files still found."""

    documents: list[str]
    versions: int
    passages: int
    bytes_freed: int
    files_scanned: list[str]
    traces_found: int
    objects: list[str] = Field(
        [], description="Deleted objects of the object storage, by their SHA-256."
    )
    objects_unproven: list[str] = Field(
        [], description="Those of them of which the storage may keep earlier versions."
    )
    complete: bool = Field(
        description="False while another process reads the previous state; the rest comes later."
    )
    at: datetime


class MatchValue(BaseModel):
    """A passage that matches a query."""

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
        description="The id of the document with a newer value of the same fact."
    )


class Matches(BaseModel):
    """The matching passages, best first."""

    matches: list[MatchValue]


class CitationValue(ResponseValue):
    """A place where the answer stands verbatim: characters `start` to `end` of a document."""

    document_id: str
    source: str | None
    start: int
    end: int
    text: str


class AnswerValue(ResponseValue):
    """An answer, its sources and its costs."""

    text: str
    sources: list[SourceValue] = Field(
        description="The passages read: first the one that the answer is from, then by rank."
    )
    reader: str
    abstained: bool = Field(description="True if the memory does not hold the answer.")
    confidence: float
    prompt_tokens: int
    memory_tokens: int = Field(description="Source tokens that were read from memory.")
    answer_tokens: int
    milliseconds: dict[str, float]
    truncated: bool = Field(description="True if the answer ended at `max_tokens`.")
    spans: list[CitationValue] = Field(
        description="Where the answer stands verbatim, in the order of the sources."
    )


class PieceValue(BaseModel):
    """A piece of an answer."""

    text: str


class StatsValue(ResponseValue):
    """The memory in numbers."""

    documents: int
    versions: int
    passages: int
    pending: int
    compressed: int
    cold: int
    tokens: int
    text_bytes: int
    memory_bytes: int
    file_bytes: int
    index: str
    model: str
    version: str = Field(description="The version of cmt-sdk.")


class Health(BaseModel):
    """The server is up."""

    ok: bool


class MapPoint(BaseModel):
    """A passage in the plane."""

    passage_id: int
    document_id: str
    source: str | None
    x: float = Field(description="In [-1, 1].")
    y: float = Field(description="In [-1, 1].")
    cluster: int = Field(description="Passages of similar meaning share a number, from 0.")
    label: str = Field(description="Its first words.")


class MapValue(BaseModel):
    """The memory in the plane."""

    points: list[MapPoint]
    neighbours: dict[int, list[int]] = Field(
        description="The nearest passages of each passage, nearest first."
    )
