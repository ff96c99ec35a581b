"""Reading: the steps that every engine shares, from logits to pieces of an answer. No torch."""
