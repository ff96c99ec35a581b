"""The `cmt` command."""
