"""Retrieval: the passages that fit a question, the best first, within a budget."""
