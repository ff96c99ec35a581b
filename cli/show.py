"""`cmt show`: one document with its fields and passages."""

from __future__ import annotations

import json
from collections.abc import Iterable

import click

import cmt_sdk
from cmt_cli.memory_folder import open_memory
from cmt_cli.options import Place, json_option, memory_option
from cmt_cli.output import echo, local_time, one_line, print_json, print_table
from cmt_cli.resolve import resolve_id

COLUMNS = ["passage", "characters", "tokens", "state", "heading"]


@click.command()
@click.argument("document_id", metavar="DOCUMENT")
@click.option("--history", is_flag=True, help="Show every version.")
@memory_option
@json_option
def show(document_id: str, history: bool, folder: Place, as_json: bool) -> None:
    """Show a document: its text, fields and passages.

    DOCUMENT is an id or its first four characters, a path or the end of a path, or another source.

    If the setting fidelity is on, each passage shows how much of it the model can read back from
    the memory: 1 means as much as from the text.

    \b
    Example:
      cmt show 3f2a --history
      cmt show notes/trip.md
    """  # noqa: D301 - click reads the escape
    with open_memory(folder) as memory:
        resolved = resolve_id(memory, document_id)
        versions = memory.history(resolved) if history else [memory.get(resolved)]
        passages = memory.passages(resolved)
    if as_json:
        print_json({"versions": versions, "passages": passages})
        return
    for version in versions:
        _print_document(version)
    rows = [(p.id, f"{p.start}:{p.end}", p.tokens, _passage_state(p), p.heading) for p in passages]
    print_table(COLUMNS, rows)


def _print_document(document: cmt_sdk.Document) -> None:
    state = _state(document.ready) if document.current else "superseded"
    echo(f"{document.id}  version {document.version}, {state}", bold=True)
    metadata = ", ".join(
        f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in document.metadata.items()
    )
    facts: Iterable[tuple[str, object]] = [
        ("source", document.source),
        ("scope", document.scope),
        ("metadata", metadata),
        ("created", local_time(document.created_at)),
        ("updated", local_time(document.updated_at)),
        ("expires", local_time(document.expires_at)),
    ]
    for name, value in facts:
        if value:
            echo(one_line(f"{name}: {value}"), dim=True)
    echo(document.text.rstrip() + "\n")


def _passage_state(passage: cmt_sdk.Passage) -> str:
    measured = "" if passage.fidelity is None else f", fidelity {passage.fidelity:.2f}"
    return _state(passage.ready) + measured


def _state(ready: bool) -> str:
    return "compressed" if ready else "pending"
