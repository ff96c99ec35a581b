"""Tensor code: compressing, matching and reading with a frozen LLM. Pure torch: no files, no
database.
"""
