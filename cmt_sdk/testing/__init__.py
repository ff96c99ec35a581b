"""For tests, ours and users': `fakes` is an engine without a language model, `tiny` holds random
models built in code.
"""
