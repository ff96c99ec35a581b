"""Understanding: what a message wants, the days that it means, and which of two notes is newer.

`intent` applies a linear probe sentence by sentence. `probe` fits it to the labelled messages of
`utterances.tsv` (nine languages), on states of the open model and on hashed characters and words;
`fitted` keeps it in a file. `small_talk` finds the shipped exchange that a message is nearest to,
`days` the days that "yesterday" means, by the data of dateparser; `newest` compares short notes.
A model is known by its states alone (ports.StateReader), a store not at all.
"""
