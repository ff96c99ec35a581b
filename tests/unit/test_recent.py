"""What was computed last is kept, up to a number of entries."""

from cmt_sdk.retrieval.recent import Recent


def test_the_entry_not_used_for_longest_goes():
    """Reading an entry is a use; a second value takes the place of the first."""
    recent = Recent(limit=2)
    recent.put("a", 1)
    recent.put("b", 2)
    assert recent.get("a") == 1
    recent.put("c", 3)
    assert [recent.get(key) for key in "abc"] == [1, None, 3]
    recent.put("a", 0)
    assert (recent.get("a"), recent.get("c")) == (0, 3)
