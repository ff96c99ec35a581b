"""What can be seen of the page without a browser: its colours can be read, and its files name
nothing that is elsewhere.
"""

import re
from itertools import pairwise
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "adapters" / "server" / "page"
ON = {
    "paper": ["ink", "quiet", "accent", "bad"],
    "sheet": ["ink", "quiet", "accent", "bad", "good"],
    "tint": ["ink", "quiet", "accent"],
    "mark": ["ink"],
    "cited": ["ink"],
    "bad-tint": ["bad"],
    "good-tint": ["good"],
    "accent": ["on-accent"],
}
SHAPES = ["edge", "accent", *(f"c{n}" for n in range(8))]


def colours(theme):
    """The colours of a theme: those of the light one, or what the dark one sets over them."""
    light, dark = (PAGE / "colours.css").read_text().split("@media")
    found = dict(re.findall(r"--([\w-]+): (#\w{6})", light))
    return found | dict(re.findall(r"--([\w-]+): (#\w{6})", dark)) if theme == "dark" else found


def contrast(one, other):
    """The contrast ratio of WCAG 2.2, from 1 to 21."""

    def luminance(colour):
        parts = [int(colour[i:j], 16) / 255 for i, j in pairwise((1, 3, 5, 7))]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_shapes_stand_out(theme):
    """AA: 4.5 to 1 for text, 3 to 1 for what has to be seen, such as edges of fields and dots of
    the map.
    """
    found = colours(theme)
    faint = {
        (t, g): round(contrast(found[t], found[g]), 2) for g, texts in ON.items() for t in texts
    }
    faint = {pair: ratio for pair, ratio in faint.items() if ratio < 4.5}
    assert faint == {}
    assert {
        s: round(contrast(found[s], found["sheet"]), 2)
        for s in SHAPES
        if contrast(found[s], found["sheet"]) < 3
    } == {}


def test_black_on_white_has_the_greatest_contrast():
    """The measure itself, at its ends."""
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#777777") == 1


@pytest.mark.parametrize("file", sorted(PAGE.iterdir()), ids=lambda f: f.name)
def test_a_file_of_the_page_stands_alone(file):
    """No address elsewhere, no inline script or style, no markup made of strings."""
    text = file.read_text().replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?:|//\w+\.\w|@import|url\(", text)
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text
    )
    assert not re.search(r"<script>|<style|\sstyle=|\son\w+=", text)
