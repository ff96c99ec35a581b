"""What was computed last is kept, up to a number of entries."""

from cmt_sdk.retrieval.lru_cache import LRUCache


def test_the_entry_not_used_for_longest_goes():
    """Reading an entry is a use; a second value takes the place of the first."""
    cache = LRUCache(limit=2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    cache.put("c", 3)
    assert [cache.get(key) for key in "abc"] == [1, None, 3]
    cache.put("a", 0)
    assert (cache.get("a"), cache.get("c")) == (0, 3)
