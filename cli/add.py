"""`cmt add`: files, folders, standard input or a text into memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import click

import cmt_sdk
from cmt_cli.failures import exit_code, tell
from cmt_cli.inputs import expanded, standard_input
from cmt_cli.memories import opened
from cmt_cli.options import Moment, json_option, memory_option, meta_option
from cmt_cli.output import amount, plain, print_json, say
from cmt_cli.progress import Update, bars
from cmt_sdk.errors import CMTError, InvalidDocument, InvalidInput, MissingExtra, NotFound, StorageDenied

UNREADABLE = (InvalidDocument, MissingExtra, NotFound, StorageDenied)


@dataclass
class Adding:
    """One run of the command: it goes on past a document that cannot be read or stored, and remembers that."""

    memory: cmt_sdk.Memory
    fields: dict[str, Any]
    as_json: bool
    update: Update
    progress: cmt_sdk.Progress = field(default_factory=cmt_sdk.Progress)
    refused: list[CMTError] = field(default_factory=list)

    @property
    def documents(self) -> int:
        """How many documents are in the memory now that were given."""
        return self.progress.added + self.progress.updated + self.progress.unchanged

    def path(self, path: str) -> None:
        """Store a file, standard input ("-"), or a folder; what a folder holds besides readable texts is passed over."""
        refuse = self.pass_over if Path(path).is_dir() else self.refuse
        for document in _read(path, refuse):
            self.document(document, refuse)

    def document(self, document: cmt_sdk.Document, refuse: Any) -> None:
        """Store a document's text; compression comes when all texts are safe."""
        metadata = {**document.metadata, **self.fields["metadata"]}
        source = self.fields["source"] or document.source
        whole = replace(document, **self.fields | {"source": source, "metadata": metadata})
        try:
            step = self.memory.add_many([whole], replace=True, compress=False)
        except InvalidDocument as error:
            refuse(error)
            return
        self.progress = self.progress.plus(**asdict(step))
        self.update("adding", self.documents, 0)

    def compress(self) -> None:
        """Compress what waits, with what earlier runs left."""
        waiting = self.memory.stats().pending
        done = self.memory.compress(lambda p: self.update("compressing", p.compressed, waiting)) if waiting else 0
        self.progress = self.progress.plus(compressed=done)

    def refuse(self, error: CMTError) -> None:
        """Tell that something named cannot be added; the exit code will be its."""
        tell(error, as_json=self.as_json)
        self.refused.append(error)

    def pass_over(self, error: CMTError) -> None:
        """Tell that something in a folder is passed over."""
"""
"""
