"""What OpenAI's clients send and expect, as pydantic models. Knows no route and no memory."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import quote

from pydantic import BaseModel, Field, StrictBool

import cmt_sdk
from cmt_adapters.server.shapes import Reader, Scope, SourceValue, Text
from cmt_sdk.errors import InvalidInput

MODEL = "cmt"
TURNS_KEPT = 24
Finish = Literal["stop", "length"]
LONGEST = 256  # tokens of an answer whose length is not given
MOST = 4096


class TextPart(BaseModel):
    """A piece of a message. Pictures and sound cannot be read."""

    type: Literal["text"]
    text: str


class Message(BaseModel):
    """Something said. Messages of tools are passed over."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[TextPart] | None = None

    @property
    def text(self) -> str:
        """What is said, in one piece."""
        return self.content if isinstance(self.content, str) else "\n".join(part.text for part in self.content or ())


class StreamOptions(BaseModel):
    """What a stream tells beside the text."""

    include_usage: StrictBool | None = False


class ChatRequest(BaseModel):
    """A conversation whose next turn is asked for. What is not named here is passed over."""

    model: str = Field(description="Any name: there is one model.")
    messages: Annotated[list[Message], Field(min_length=1)]
    stream: StrictBool | None = False
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = Field(None, description="There is one answer.")
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1, description="The longest answer, in tokens (256); at most 4,096.")
    user: str | None = Field(None, max_length=200, description='Who asks; narrows the memory to the scope "user/<user>".')
    k: int | None = Field(None, ge=1, le=100, description="Passages to read (5).")
    reader: Reader = Field("memory", description="What the model reads; see /api/ask.")
    scope: Scope | None = Field(None, description="In place of the scope of `user`.")
    remember: StrictBool | None = Field(
        None, description="Whether what the user tells is added to the memory, in the scope (as the server is set)."
    )

    @property
    def within(self) -> str:
        """The scope; a user's name is one name in it, whatever it holds."""
        if self.scope is not None or not self.user:
            return self.scope or ""
        name = quote(self.user, safe=" ")
        return "user/" + (name if name.strip(".") else name.replace(".", "%2E"))

    def options(self) -> dict[str, Any]:
        """The question with its history, as `MemoryModel.ask` takes them. Raises InvalidInput where nothing is asked."""
        said = [cmt_sdk.Turn("system" if m.role == "developer" else m.role, m.text) for m in self.messages if m.text.strip()]
        rules = [t for t in said if t.role == "system"]
        turns = [t for t in said if t.role in ("user", "assistant")]
        if not turns or turns[-1].role != "user":
            raise InvalidInput("messages: the last one is not the user's: end with a question")
        return {
            "question": turns[-1].content,
            "history": [*rules, *turns[-1 - TURNS_KEPT : -1]],
            "k": self.k,
            "reader": self.reader,
            "scope": self.within or None,
            "max_tokens": self.longest,
        }

    @property
    def longest(self) -> int:
        """The longest answer, in tokens. Clients that are used to larger models ask for more than there can be."""
        return min(self.max_completion_tokens or self.max_tokens or LONGEST, MOST)


class EmbeddingRequest(BaseModel):
    """Texts to embed, up to 2,048."""

    model: str = Field(description="Any name: there is one model.")
    input: Text | Annotated[list[Text], Field(min_length=1, max_length=2048)]
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: int | None = Field(None, ge=1, description="Only what the model's vectors have.")
    user: str | None = None


class Model(BaseModel):
    """A model that can be asked."""

    id: str = MODEL
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "cmt-sdk"


class Models(BaseModel):
    """The one model."""

    object: Literal["list"] = "list"
    data: list[Model]


class Usage(BaseModel):
    """Tokens; `memory_tokens` are those of sources that were read from memory, in place of their text."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    memory_tokens: int


class Said(BaseModel):
    """The answer's message."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: str | None = None


class Choice(BaseModel):
    """The one answer."""

    index: Literal[0] = 0
    message: Said
    logprobs: None = None
    finish_reason: Finish


class Completion(BaseModel):
    """An answer with its sources."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str = MODEL
    choices: list[Choice]
    usage: Usage
    sources: list[SourceValue]


class Delta(BaseModel):
    """What a chunk adds to the message."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(BaseModel):
    """The one answer, as it grows."""

    index: int
    delta: Delta
    finish_reason: Finish | None


class Chunk(BaseModel):
    """A piece of a streamed answer. The one that ends it brings the sources; where usage is asked for, one more follows."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | None = None
    sources: list[SourceValue] | None = None


class Embedding(BaseModel):
    """One vector of length 1: numbers, or the base64 of little-endian float32."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(BaseModel):
    """Tokens, estimated: one for four letters."""

    prompt_tokens: int
    total_tokens: int


class Embeddings(BaseModel):
    """One vector for each text, in their order."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str = MODEL
    usage: EmbeddingUsage
