"""`cmt search`: the passages that match a query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click
from click.core import ParameterSource

import cmt_sdk
from cmt_cli.daemon_report import report_daemon
from cmt_cli.memory_folder import open_memory
from cmt_cli.options import (
    Place,
    filter_options,
    json_option,
    k_option,
    memory_option,
    verbose_option,
)
from cmt_cli.output import echo, one_line, pluralize, print_json, short_source, to_jsonable
from cmt_cli.progress import spinner
from cmt_cli.resolve import resolve_filter
from cmt_cli.source_display import match_dates, print_match

MIN_SCORE_SHARE = 0.5  # of the best score; matches below are left out unless -k is given


@click.command()
@click.argument("query")
@k_option
@click.option(
    "--mode",
    type=click.Choice(cmt_sdk.SEARCH_MODES),
    default="fused",
    show_default=True,
    help=(
        "vector: by meaning; text: by words (needs no model); fused: by both; reranked: fused, then"
        " reordered by the model."
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
    filters: Mapping[str, Any],
    verbose: bool,
    folder: Place,
    as_json: bool,
) -> None:
    """Find passages by meaning and words, best match first.

    Without -k or --json, matches that score less than half of the best one are left out. Superseded
    passages are marked.

    -v shows the position of each passage in its document, its score and the reasons for the score.

    \b
    Example:
      cmt search --mode text "oil change" -k 3
    """  # noqa: D301 - click reads the escape
    if verbose:
        report_daemon()
    with open_memory(folder) as memory, spinner("searching"):
        found = memory.search(query, k, mode=mode, **resolve_filter(memory, filters))
    if as_json:
        print_json([_as_json(match) for match in found])
        return
    if not found:
        echo("nothing found", err=True)
        return
    has_k = click.get_current_context().get_parameter_source("k") is not ParameterSource.DEFAULT
    least = MIN_SCORE_SHARE * found[0].score
    shown = len(found) if has_k else sum(match.score >= least for match in found)
    _print_matches(query, found[:shown], verbose=verbose)
    if left := len(found) - shown:
        echo(
            f"{pluralize(left, 'passage')} that {'fits' if left == 1 else 'fit'} much less left"
            f" out; -k {k} shows all",
            err=True,
        )


def _print_matches(query: str, matches: Sequence[cmt_sdk.Match], *, verbose: bool) -> None:
    dates = match_dates(matches)
    for number, match in enumerate(matches, 1):
        passage = match.passage
        name = short_source(match.document.source, match.document.id)
        span = f"[{passage.start}:{passage.end}]" if verbose else ""
        mark = ", superseded" if match.superseded_by else ""
        echo(one_line(f"{number}. {name}{span}{dates[number - 1]}{mark}"), bold=True)
        if verbose:
            echo(f"   score {match.score:.4f}, {match.why}", dim=True)
        print_match(query, match)


def _as_json(match: cmt_sdk.Match) -> dict[str, Any]:
    """Return a match as JSON with the passage's text but without the document's full text."""
    fields = to_jsonable(match.document)
    document = {name: value for name, value in fields.items() if name != "text"}
    return {**to_jsonable(match), "why": match.why, "document": document}
