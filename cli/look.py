"""`cmt search`, `list`, `show`, `stats`: looking at a memory without changing it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import click

from cmt_cli.common import (
    conditions,
    filter_options,
    first_line,
    json_option,
    memory_option,
    opened,
    plain,
    print_json,
    printable,
    table,
    whole_id,
)


@click.command()
@click.argument("query")
@click.option("-k", "k", default=5, show_default=True, type=click.IntRange(min=1), help="Passages to show.")
@click.option("--mode", type=click.Choice(["fused", "vector", "text"]), default="fused", show_default=True)
@filter_options
@memory_option
@json_option
def search(
    query: str,
    k: int,
    mode: str,
    scope: str | None,
    source: str | None,
    where_: Sequence[str],
    where: str | None,
    as_json: bool,
) -> None:
    """Find passages by meaning and words (fused), by meaning (vector), or by words alone (text, no model).

    \b
    Example:
      cmt search --mode text "oil change" -k 3
    """  # noqa: D301 - click reads the escape
    with opened(where) as memory:
        found = memory.search(query, k, mode=mode, **conditions(scope, source, where_))  # type: ignore[arg-type]
    if as_json:
        print_json(found)
        return
    for number, match in enumerate(found, 1):
        p = match.passage
        name = match.document.source or match.document.id[:8]
        click.secho(printable(f"{number}. {name}[{p.start}:{p.end}]"), bold=True, nl=False)
        click.secho(f"  {match.score:.4f}  {match.why}", dim=True)
        click.echo(f"   {printable(first_line(p.content, 160))}")


@click.command("list")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(min=1), help="Documents to list.")
@click.option("--all", "every", is_flag=True, help="List all of them.")
@filter_options
@memory_option
@json_option
def list_(
    limit: int,
    every: bool,
    scope: str | None,
    source: str | None,
    where_: Sequence[str],
    where: str | None,
    as_json: bool,
) -> None:
    """List documents, the oldest first; with --json one object a line.

    \b
    Example:
      cmt list --scope user/ann --where "year>=2020"
    """  # noqa: D301 - click reads the escape
    chosen = conditions(scope, source, where_)
    with opened(where) as memory:
        documents = list(islice(memory.documents(**chosen), None if every else limit))
        total = memory.count(**chosen)
    if as_json:
        for document in documents:
            print_json(document)
        return
    rows = [(d.id[:8], d.source or "", d.scope, d.version, d.updated_at, first_line(d.text)) for d in documents]
    short = [(i, s, c, v, t and t.strftime("%Y-%m-%d %H:%M"), x) for i, s, c, v, t, x in rows]
    table(["id", "source", "scope", "version", "updated", "text"], short)
    if total > len(documents):
        click.echo(f"{len(documents)} of {total}; --all lists the rest", err=True)


@click.command()
@click.argument("document_id", metavar="ID")
@click.option("--history", is_flag=True, help="Show every version.")
@memory_option
@json_option
def show(document_id: str, history: bool, where: str | None, as_json: bool) -> None:
    """Show a document: its text, fields and passages. The first four characters of an id are enough.

    \b
    Example:
      cmt show 3f2a --history
    """  # noqa: D301 - click reads the escape
    with opened(where) as memory:
        whole = whole_id(memory, document_id)
        versions = memory.history(whole) if history else [memory.get(whole)]
        passages = memory.passages(whole)
    if as_json:
        print_json({"versions": plain(versions), "passages": plain(passages)})
        return
    for version in versions:
        state = "" if version.current else " (superseded)"
        ready = "" if version.ready or not version.current else ", waits for compression"
        click.secho(printable(f"{version.id}  version {version.version}{state}{ready}"), bold=True)
        for name in ("source", "scope", "metadata", "created_at", "updated_at", "expires_at"):
            if getattr(version, name):
                click.secho(printable(f"{name}: {getattr(version, name)}"), dim=True)
        click.echo("\n".join(printable(line) for line in version.text.split("\n")) + "\n")
    table(
        ["passage", "characters", "tokens", "heading"],
        [(p.id, f"{p.start}:{p.end}", p.tokens, p.heading) for p in passages],
    )


@click.command()
@memory_option
@json_option
def stats(where: str | None, as_json: bool) -> None:
    """Show the memory in numbers.

    \b
    Example:
      cmt stats -m work
    """  # noqa: D301 - click reads the escape
    with opened(where) as memory:
        figures, path = memory.stats(), memory.path
    if as_json:
        print_json(plain(figures) | {"path": str(path)})
        return
    table(["", ""], [("path", path), *((k.replace("_", " "), v) for k, v in plain(figures).items())])
