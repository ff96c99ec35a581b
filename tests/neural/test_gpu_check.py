"""The check for machines with a GPU, rehearsed on a CPU with a random model."""

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "examples" / "benchmarks" / "gpu_check.py"


def test_the_rehearsal_runs_every_check_in_every_precision(tmp_path, monkeypatch):
    """A line for each; where one fails, the others still run and the end is 1."""
    spec = importlib.util.spec_from_file_location("gpu_check", SCRIPT)
    gpu_check = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(__import__("sys").modules, "gpu_check", gpu_check)
    spec.loader.exec_module(gpu_check)
    report = tmp_path / "report.md"
    assert gpu_check.main([str(report), "--tiny"]) == 0
    rows = [line.split(" | ")[:2] for line in report.read_text().splitlines()[6:]]
    expected = {
        (check, precision)
        for precision in ("nf4", "bf16", "fp16")
        for check in ("adding and asking", "evaluation", "training")
    } - {("training", "fp16")}
    assert {(row[0].lstrip("| "), row[1]) for row in rows} == expected
    monkeypatch.setattr(gpu_check, "PRECISIONS", ("fp16",))
    monkeypatch.setattr(gpu_check, "FACTS", ())
    assert gpu_check.main([str(report), "--tiny"]) == 1
    assert "FAILED" in report.read_text()
