"""Two runs of an evaluation, compared question by question."""

import json

from examples.benchmarks import paired


def run(path, scores):
    """A --rows file: by question the F1 with its passage, and both confidences."""
    rows = [
        {
            "id": name,
            "replies": {"memory": {"f1": f1, "text": text, "sources": [1], "confidence": knows}},
            "absent": {"memory": {"confidence": guesses}},
        }
        for name, (f1, text, knows, guesses) in scores.items()
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_runs_are_paired_by_question(tmp_path, capsys):
    """Questions of one run alone count in neither; differences are second less first."""
    first = run(
        tmp_path / "first",
        {"a": (1.0, "x", 0.9, 0.1), "b": (0.5, "y", 0.8, 0.2), "c": (0, "", 0.1, 0.9)},
    )
    second = run(tmp_path / "second", {"a": (0.0, "z", 0.9, 0.85), "b": (1.0, "y", 0.8, 0.2)})
    paired.main([str(first), str(second)])
    written = capsys.readouterr().out.splitlines()
    assert written == [
        "2 questions, F1 75.00 and 50.00: -25.00 (-100.00 to +50.00), 1 better, 1 worse",
        "other words 1, other passages or another order 0",
        "AUROC of the confidence 1.0000 and 0.7500",
    ]
