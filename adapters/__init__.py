"""Adapters: cmt-sdk memories in other frameworks, one file per framework.

Nothing here is imported unless its framework is used.
"""
