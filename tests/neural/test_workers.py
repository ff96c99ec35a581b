"""Several processes train one adapter, through accelerate."""

import json
import socket
import subprocess
import sys

import pytest
import torch

from cmt_sdk.errors import InvalidSetting
from cmt_sdk.testing.tiny import save_tiny
from cmt_sdk.training import Plan, Recipe, prepare
from cmt_sdk.training.distributed import Workers
from cmt_sdk.training.loop import _sum_gradients
from tests.neural.test_train_command import TOWNS


def _free_port():
    """A port of this machine that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.mark.enable_socket
def test_two_processes_share_every_step(tmp_path):
    """Each draws its own examples: a step has the questions of both, one log and one state; one
    process cannot go on alone.
    """
    model, out, file = save_tiny(tmp_path / "tiny"), tmp_path / "made", tmp_path / "towns.jsonl"
    rows = [
        {
            "title": f"part {n % 4}",
            "context": f"Tower {n} is in {t}.",
            "question": f"Where is tower {n}?",
            "answers": [t],
        }
        for n, t in enumerate(TOWNS)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    options = [
        "--start",
        "none",
        "--steps",
        "3",
        "--accumulate",
        "1",
        "--rank",
        "4",
        "--held-out",
        "1",
    ]
    options += ["--nf4", "0", "--device", "cpu", "--yes"]
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--master_addr",
        "127.0.0.1",
    ]
    launch += ["--master_port", str(_free_port()), "-m", "cmt_cli.main", "--", "train", str(file)]
    made = subprocess.run(
        [*launch, "--model", str(model), "--out", str(out), *options],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert made.returncode == 0, made.stderr[-2000:]
    lines = [
        json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3]
    state = json.loads((out / "state" / "state.json").read_text(encoding="utf-8"))
    assert len(state["tasks"]) == 2
    assert state["tasks"][0] != state["tasks"][1]
    assert (out / "README.md").exists()
    plan = Plan(3, accumulate=1)
    recipe = Recipe(
        "reader",
        out,
        [file],
        model=str(model),
        start="none",
        plan=plan,
        rank=4,
        nf4=0.0,
        held_out=1,
        device="cpu",
    )
    with pytest.raises(InvalidSetting, match="holds a run of 2 processes, this one has 1: start 2"):
        prepare(recipe).run()


class _Twins(Workers):
    """Two processes that have the same gradients."""

    def __init__(self):
        self.size, self.rank = 2, 0

    def sum(self, value):
        return 2 * value


def test_gradients_are_summed_each_in_its_place():
    """Also of a tensor that this process did not reach: another one may have."""
    parameters = [torch.zeros(2, 3), torch.zeros(4), torch.zeros(1)]
    parameters[0].grad, parameters[2].grad = torch.arange(6.0).reshape(2, 3), torch.tensor([7.0])
    _sum_gradients(parameters, _Twins())
    assert [p.grad.tolist() for p in parameters] == [
        [[0.0, 2.0, 4.0], [6.0, 8.0, 10.0]],
        [0.0] * 4,
        [14.0],
    ]


@pytest.mark.parametrize(
    ("gpus", "place", "sharing"), [(4, "cuda:3", 1), (2, "cuda:1", 2), (1, "cuda:0", 4)]
)
def test_processes_go_round_the_gpus(monkeypatch, gpus, place, sharing):
    """The fourth of four processes, with as many GPUs, and with fewer."""
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert (_Twins().device("auto"), _Twins().on_one_gpu) == (place, sharing)
    assert _Twins().device("cpu") == "cpu"
