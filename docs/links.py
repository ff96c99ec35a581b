"""A hook of mkdocs: links to files outside the manual become their paths, because the site does not
hold these files. In the repository the links lead to them.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

DOCS = Path(__file__).parent
LINK = re.compile(r"\[(?P<text>[^\]]+)\]\((?P<target>\.\./[^)\s#]+)(?:#[^)]*)?\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page's Markdown, with each link that leaves docs/ as text and path."""
    folder = (DOCS / page.file.src_uri).parent

    def shown(link: re.Match[str]) -> str:
        target = (folder / link["target"]).resolve()
        if target.is_relative_to(DOCS):
            return link[0]
        path = PurePosixPath(target.relative_to(DOCS.parent))
        is_name = link["text"].strip("`") in str(path)
        return f"`{path}`" if is_name else f"{link['text']} (`{path}`)"

    return LINK.sub(shown, markdown)
