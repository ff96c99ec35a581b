"""Compression methods: each file makes one kind of memory and lays it out for attention."""
