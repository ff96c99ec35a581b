"""Doubles for tests, ours and users'.

`fakes` is an engine without a language model; `tiny` and `families` build random models in code.
"""
