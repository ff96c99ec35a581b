"""Ask the default memory through the `llm` package and show the sources: llm_sources.py
QUESTION.
"""

import sys

import llm


def main(question: str, model: str = "cmt") -> None:
    """Print the answer as it comes, then where it is from."""
    response = llm.get_model(model).prompt(question, k=1)
    for piece in response:
        print(piece, end="", flush=True)
    print()
    for source in response.json()["sources"]:
        print(
            f"  {source['source'] or source['document_id']}[{source['start']}:{source['end']}]:"
            f" {source['text']}"
        )


if __name__ == "__main__":
    main(sys.argv[1])
