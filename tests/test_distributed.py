"""Training in two processes: the weights of one process with the same global batch, in every process."""

import json

import numpy as np
import pytest
from helpers import ROOT, python

SCRIPT = ROOT / "tests" / "fixtures" / "train_two.py"


def trained(folder, processes, patience=None):
    "What each process ended with."
    folder.mkdir()
    launcher = (
        ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", processes)
        if processes > 1
        else ()
    )
    python(*launcher, SCRIPT, folder, json.dumps(patience), timeout=180, OMP_NUM_THREADS="1")
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(processes)]


@pytest.mark.parametrize("patience", [None, 1])
def test_two_processes_end_as_one(tmp_path, patience):
    (alone,) = trained(tmp_path / "one", 1, patience)
    both = trained(tmp_path / "two", 2, patience)
    assert [r["world"] for r in both] == [2, 2], "the launcher started another number of processes"
    for rank in both:
        np.testing.assert_allclose(rank["weights"], alone["weights"], rtol=1e-5)
        np.testing.assert_allclose(rank["losses"], alone["losses"], rtol=1e-5)
        np.testing.assert_allclose(rank["rows"], alone["rows"], rtol=1e-5, atol=1e-8)
        assert rank["stopped"] == alone["stopped"]


def test_files_are_written_once_and_hold_the_whole(tmp_path):
    first, second = trained(tmp_path / "run", 2)
    lines = (tmp_path / "run" / "run" / "history.csv").read_text().splitlines()
    assert len(lines) == 1 + len(first["losses"])
    assert first["weights"] == second["weights"]
