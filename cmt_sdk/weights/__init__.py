"""Base models and adapters on this machine.

`registry` (the models here) and `download` (getting more) know no torch; `loading` and `adapters`
make modules of the files. `convert` and `hub` are programs that `download` runs in a process of
their own.
"""
