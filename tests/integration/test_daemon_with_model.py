"""The daemon with the real default model: a warm answer is the cold one."""

import os
import re
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

import cmt_sdk
from cmt_sdk.system import daemon

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(not daemon.IS_UNIX, reason="a Unix socket in a folder of the test"),
]
TEXTS = (
    "The city museum moved to Lisbon in 2019. Its director is Marta Quintela.",
    "The harbour of Genoa opens at nine in the morning. It was built by the Doria family.",
    "Ann likes green tea with ginger. She drinks it cold, from a blue cup.",
)
COMMANDS = (
    ("ask", "-v", "Where did the city museum move to?"),
    ("search", "-v", "a cold drink"),
)


@pytest.mark.parametrize("runtime", ["torch", "onnx"])
def test_a_warm_answer_is_the_cold_one(tmp_path, runtime):
    """Both streams and the exit code are equal, by either runtime, and the model is loaded once."""
    with cmt_sdk.open(tmp_path / "memory") as memory:
        for text in TEXTS:
            memory.add(text)
        memory.configure(runtime=runtime)
    with tempfile.TemporaryDirectory() as runtime_folder:

        def cmt(keep_alive, *arguments):
            variables = {"CMT_KEEP_ALIVE": keep_alive, "XDG_RUNTIME_DIR": runtime_folder}
            done = subprocess.run(
                [sys.executable, "-m", "cmt_cli.start", *arguments, "-m", tmp_path / "memory"],
                env=os.environ | variables,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            # a machine that is busy may be too slow for one question of the many
            errors = re.sub("without the daemon: .*in time\n", "", done.stderr)
            return done.returncode, done.stdout, errors

        folder = str(Path(runtime_folder) / "cmt")
        try:
            cold = [cmt("0", *arguments) for arguments in COMMANDS]
            assert [cmt("60", *arguments) for arguments in COMMANDS] == cold
            assert [cmt("60", *arguments) for arguments in COMMANDS] == cold
            with closing(daemon.connect(folder)) as link:
                link.send(daemon.STATUS)
                facts = link.receive_object(daemon.STATUS, 60)
            assert facts["model"] == "smollm2-135m-instruct"
            assert cold[0][0] == 0
            assert "Lisbon" in cold[0][1]
        finally:
            daemon.stop(folder)
