"""`cmt search`, `list`, `show`, `stats`: looking at a memory without changing it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

import cmt_sdk
from cmt_cli.memories import narrowed, opened, whole_id
from cmt_cli.options import filter_options, json_option, k_option, memory_option, verbose_option
from cmt_cli.output import (
    SHORTEST_ID,
    amount,
    local_time,
    one_line,
    place,
    plain,
    print_json,
    say,
    short_id,
    table,
)
from cmt_cli.progress import waiting
from cmt_cli.quoting import match_dates, print_match

FALL = 0.5  # of the best score: what has less is left out


@click.command()
@click.argument("query")
@k_option
@click.option(
    "--mode",
    type=click.Choice(cmt_sdk.SEARCH_MODES),
    default="fused",
    show_default=True,
    help=(
        "By meaning and words and then by reading, by both alone, by meaning, or by words (which"
        " needs no model)."
    ),
)
@filter_options
@verbose_option
@memory_option
@json_option
def search(
    query: str,
    k: int,
    mode: Any,
    chosen: Mapping[str, Any],
    verbose: bool,
    folder: Path,
    as_json: bool,
) -> None:
    """Find passages by meaning and words, the best first.

    What fits much less than the best is left out, unless -k says how many are wished; with --json
    it never is. What a newer one supersedes is marked.

    -v shows of each where it stands in its document, its score and the reasons.

    \b
    Example:
      cmt search --mode text "oil change" -k 3
    """  # noqa: D301 - click reads the escape
    with opened(folder) as memory, waiting("searching"):
        found = memory.search(query, k, mode=mode, **narrowed(memory, chosen))
    if as_json:
        print_json([_as_json(match) for match in found])
        return
    is_wished = click.get_current_context().get_parameter_source("k") is not ParameterSource.DEFAULT
    shown = (
        len(found) if is_wished else sum(match.score >= FALL * found[0].score for match in found)
    )
    left, found = len(found) - shown, found[:shown]
    dates = match_dates(found)
    for number, match in enumerate(found, 1):
        p, name = match.passage, place(match.document.source, match.document.id)
        where = f"[{p.start}:{p.end}]" if verbose else ""
        mark = ", superseded" if match.superseded_by else ""
        say(one_line(f"{number}. {name}{where}{dates[number - 1]}{mark}"), bold=True)
        if verbose:
            say(f"   score {match.score:.4f}, {match.why}", dim=True)
        print_match(query, match)
    if not found:
        say("nothing found", err=True)
    if left:
        say(
            f"{amount(left, 'passage')} that {'fits' if left == 1 else 'fit'} much less left out;"
            f" -k {k} shows all",
            err=True,
        )


def _as_json(match: cmt_sdk.Match) -> dict[str, Any]:
    """A match without the whole text of its document: the passage's own is there."""
    document = {name: value for name, value in plain(match.document).items() if name != "text"}
    return {**plain(match), "why": match.why, "document": document}


@click.command("list")
@click.option(
    "--limit", default=50, show_default=True, type=click.IntRange(min=1), help="Documents to list."
)
@click.option("--all", "every", is_flag=True, help="List all of them.")
@filter_options
@memory_option
@json_option
def list_(limit: int, every: bool, chosen: Mapping[str, Any], folder: Path, as_json: bool) -> None:
    """List documents, the oldest first.

    With --json one object a line.

    \b
    Example:
      cmt list --scope user/ann --where "year>=2020"
    """  # noqa: D301 - click reads the escape
    with opened(folder) as memory:
        chosen = narrowed(memory, chosen)
        documents = islice(memory.documents(**chosen), None if every else limit)
        if as_json:
            for document in documents:
                print_json(document)
            return
        table(
            ["id", "source", "scope", "version", "updated", "text"],
            (_row(memory, d) for d in documents),
        )
        total = memory.count(**chosen)
    if not total:
        say("no documents", err=True)
    elif total > limit and not every:
        say(f"{limit} of {total}; --all lists the rest", err=True)


def _row(memory: cmt_sdk.Memory, document: cmt_sdk.Document) -> tuple[object, ...]:
    shown = short_id(document.id, memory.ids(document.id[:SHORTEST_ID]))
    source = place(document.source, "")
    text = one_line(document.text, 60)
    return shown, source, document.scope, document.version, local_time(document.updated_at), text


@click.command()
@click.argument("document_id", metavar="DOCUMENT")
@click.option("--history", is_flag=True, help="Show every version.")
@memory_option
@json_option
def show(document_id: str, history: bool, folder: Path, as_json: bool) -> None:
    """Show a document: its text, fields and passages.

    DOCUMENT is its id or the first four characters of that, its path or the end of that, or another
    source.

    With the setting fidelity, how much of each passage the model reads from its memory: 1 is as
    much as from the text.

    \b
    Example:
      cmt show 3f2a --history
      cmt show notes/trip.md
    """  # noqa: D301 - click reads the escape
    with opened(folder) as memory:
        whole = whole_id(memory, document_id)
        versions = memory.history(whole) if history else [memory.get(whole)]
        passages = memory.passages(whole)
    if as_json:
        print_json({"versions": versions, "passages": passages})
        return
    for version in versions:
        _show(version)
    columns = ["passage", "characters", "tokens", "state", "heading"]
    table(
        columns,
        [(p.id, f"{p.start}:{p.end}", p.tokens, _passage_state(p), p.heading) for p in passages],
    )


def _show(document: cmt_sdk.Document) -> None:
    state = _state(document.ready) if document.current else "superseded"
    say(f"{document.id}  version {document.version}, {state}", bold=True)
    times = {
        name: local_time(getattr(document, name))
        for name in ("created_at", "updated_at", "expires_at")
    }
    metadata = ", ".join(
        f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in document.metadata.items()
    )
    facts: Iterable[tuple[str, object]] = [
        ("source", document.source),
        ("scope", document.scope),
        ("metadata", metadata),
    ]
    for name, value in [*facts, *times.items()]:
        if value:
            say(one_line(f"{name.removesuffix('_at')}: {value}"), dim=True)
    say(document.text.rstrip() + "\n")


def _passage_state(passage: cmt_sdk.Passage) -> str:
    measured = "" if passage.fidelity is None else f", fidelity {passage.fidelity:.2f}"
    return _state(passage.ready) + measured


def _state(ready: bool) -> str:
    return "compressed" if ready else "waits"


@click.command()
@memory_option
@json_option
def stats(folder: Path, as_json: bool) -> None:
    """Show the memory in numbers.

    \b
    Example:
      cmt stats -m work
    """  # noqa: D301 - click reads the escape
    with opened(folder) as memory:
        figures = {"path": str(memory.path), **plain(memory.stats())}
    if as_json:
        print_json(figures)
        return
    shown = {
        name: f"{value:,}" if isinstance(value, int) else value for name, value in figures.items()
    }
    table(["", ""], [(name.replace("_", " "), value) for name, value in shown.items()])
