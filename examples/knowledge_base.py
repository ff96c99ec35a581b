"""A personal knowledge base from a folder of Markdown: knowledge_base.py FOLDER QUESTION...

Run again after writing: only what has changed is read again. `cmt watch FOLDER` does the same all
day long.
"""

import sys
from pathlib import Path

import cmt_sdk


def main(memory: cmt_sdk.Memory, folder: Path, questions: list[str]) -> None:
    """Bring the memory in step with the folder, then answer each question with the notes that it
    was read from.
    """
    folder = folder.resolve()
    done = memory.add_many(cmt_sdk.read_documents([folder]), replace=True)
    gone = [d for d in memory.documents(source=f"{folder}/*") if not Path(str(d.source)).exists()]
    for document in gone:
        memory.delete(document.id)
    print(
        f"{done.added} added, {done.updated} updated, {len(gone)} removed, {done.unchanged} as they"
        " were"
    )
    for question in questions:
        answer = memory.model.ask(question, k=3)
        print(f"\n{question}\n  {answer.text}")
        for source in answer.sources:
            note = Path(str(source.source)).relative_to(folder)
            print(
                f"  [{note}, characters {source.start} to {source.end}]"
                f" {source.text.splitlines()[0]:.70}"
            )


if __name__ == "__main__":
    with cmt_sdk.open("knowledge_base") as opened:
        main(opened, Path(sys.argv[1]), sys.argv[2:])
