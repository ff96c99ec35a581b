"""Answering: reads passages and checks that the answer stands."""
