"""A model's tokenizer from its files, without transformers, and the prompts over it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from cmt_sdk.text.prompt_tokens import Prompts

NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def read_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file; empty where there is no such file."""
    if not file.exists():
        return {}
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


@dataclass(frozen=True)
class FileTokenizer:
    """What `Prompts` asks of a tokenizer of transformers, from the same files.

    Attributes:
        folder: The model's.
    """

    folder: Path

    @cached_property
    def _config(self) -> dict[str, Any]:
        return read_json(self.folder / "tokenizer_config.json")

    @cached_property
    def _plain(self) -> Tokenizer:
        return Tokenizer.from_file(str(self.folder / "tokenizer.json"))

    @cached_property
    def _by_letters(self) -> Tokenizer:
        """Reads special tokens as letters."""
        tokenizer = Tokenizer.from_str(self._plain.to_str())
        tokenizer.encode_special_tokens = True
        return tokenizer

    def __call__(
        self, text: str, *, add_special_tokens: bool = True, split_special_tokens: bool = False
    ) -> dict[str, list[int]]:
        """Token ids under "input_ids"."""
        spelled = split_special_tokens and any(t in text for t in self.all_special_tokens)
        tokenizer = self._by_letters if spelled else self._plain
        ids = tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return {"input_ids": ids}

    def get_vocab(self) -> dict[str, int]:
        """The ids of all tokens by their names."""
        return self._plain.get_vocab()

    def convert_ids_to_tokens(self, token: int) -> str | None:
        """The name of a token in the vocabulary; None where it has none."""
        return self._plain.id_to_token(token)

    def decode(self, ids: list[int], *, skip_special_tokens: bool = False) -> str:
        """The text of token ids."""
        return self._plain.decode(ids, skip_special_tokens=skip_special_tokens)

    @property
    def added_tokens_decoder(self) -> dict[int, AddedToken]:
        """The tokens that were added to the vocabulary, by id."""
        return self._plain.get_added_tokens_decoder()

    @cached_property
    def special_tokens_map(self) -> dict[str, str]:
        """The special tokens by their names."""
        found = {name: self._config.get(name) for name in NAMED}
        return {
            name: str(token["content"] if isinstance(token, dict) else token)
            for name, token in found.items()
            if token
        }

    @cached_property
    def all_special_tokens(self) -> list[str]:
        """Every spelling of a special token."""
        added = [t.content for t in self.added_tokens_decoder.values() if t.special]
        return sorted({*self.special_tokens_map.values(), *added})

    @cached_property
    def chat_template(self) -> str | None:
        """The chat template; None without one."""
        file = self.folder / "chat_template.jinja"
        if file.exists():
            return file.read_text(encoding="utf-8")
        template = self._config.get("chat_template")
        return template if isinstance(template, str) else None

    def get_chat_template(self) -> str | None:
        """The chat template."""
        return self.chat_template

    @property
    def bos_token(self) -> str | None:
        """The token that begins a text; None without one."""
        return self.special_tokens_map.get("bos_token")

    @property
    def bos_token_id(self) -> int | None:
        """Its id."""
        return None if self.bos_token is None else self._plain.token_to_id(self.bos_token)

    @property
    def eos_token_id(self) -> int | None:
        """The id of the token that ends a text; None without one."""
        token = self.special_tokens_map.get("eos_token")
        return None if token is None else self._plain.token_to_id(token)


@dataclass(frozen=True)
class FilePrompts(Prompts):
    """The prompts of the model in a folder."""

    folder: Path

    @cached_property
    def tokenizer(self) -> FileTokenizer:
        """The model's tokenizer."""
        return FileTokenizer(self.folder)

    @cached_property
    def family(self) -> str:
        """See Prompts."""
        return str(read_json(self.folder / "config.json").get("model_type", ""))

    @property
    def generation_stops(self) -> int | list[int] | None:
        """See Prompts."""
        stops: int | list[int] | None = read_json(self.folder / "generation_config.json").get(
            "eos_token_id"
        )
        return stops
