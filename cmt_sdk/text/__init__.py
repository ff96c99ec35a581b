"""Text without a model: words, dates, titles, passages, prompts, and where an answer stands."""
