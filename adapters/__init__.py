"""Adapters: cmt-sdk memories in other frameworks, one file each. Each is imported only by whom it
serves.
"""
