"""Questions about passages, from files of several formats."""
