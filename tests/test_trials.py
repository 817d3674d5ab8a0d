"Trials and what stands on them: killed runs go on, other programs' files reach the board, weights count as copies."

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
import pytest
from helpers import ROOT
from sklearn.metrics import roc_auc_score

from jet_anomaly.cli.main import main
from jet_anomaly.cli.show import describe
from jet_anomaly.core.provenance import made_by
from jet_anomaly.data.toys import toy_delphes
from jet_anomaly.evaluate.results import UNDEFINED, Sample, score_of
from jet_anomaly.experiment import trials
from jet_anomaly.experiment.board import judge, load_board
from jet_anomaly.experiment.compare import Entry, compare, default_entries
from jet_anomaly.experiment.scan import scan
from jet_anomaly.experiment.trials import as_file, complete, fit_at_once, run_trials
from jet_anomaly.jet import substructure
from jet_anomaly.jet.jets import Jets

SCRIPT = """
import sys, time
from pathlib import Path
from jet_anomaly.experiment.trials import run_trials
def slow(job):
    time.sleep(job["seconds"])
    return {"pid": __import__("os").getpid()}
jobs = [dict(seconds=s, folder=str(Path(sys.argv[1], str(i)))) for i, s in enumerate((0, 0, float(sys.argv[2])))]
run_trials(slow, jobs, progress=False)
"""


def test_a_killed_run_goes_on(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, tmp_path / "script.py", tmp_path / "trials"]
    first = subprocess.Popen([*command, "600"], env=env)
    until = time.monotonic() + 120
    while not (tmp_path / "trials/1/result.json").is_file():
        assert time.monotonic() < until and first.poll() is None
        time.sleep(0.05)
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert not (tmp_path / "trials/2/result.json").exists()
    subprocess.run([*command, "0"], env=env, check=True)
    pids = [json.loads((tmp_path / f"trials/{i}/result.json").read_text())["pid"] for i in range(3)]
    assert pids[0] == pids[1] == first.pid != pids[2]


@pytest.fixture(scope="module")
def delphes(tmp_path_factory):
    "Files of this library, read on the command line from toys in the layout of Delphes."
    folder = tmp_path_factory.mktemp("delphes")
    for seed, name in enumerate(("train", "test", "top")):
        toy_delphes(folder / f"{name}.root", events=150, seed=seed)
        words = [
            "read",
            "delphes",
            folder / f"{name}.root",
            "--out",
            folder / f"{name}.h5",
            "--quiet",
        ]
        assert main([str(w) for w in words]) == 0
    return folder


def test_delphes_files_reach_the_board(delphes, tmp_path, capsys):
    have = Jets.from_hdf5(delphes / "test.h5").observables
    assert "d2" not in have and "tau21" not in have
    words = f"compare --train qcd={delphes}/train.h5 --test qcd={delphes}/test.h5 --test top={delphes}/top.h5"
    words += f" --direction qcd:top --seeds 1 --out {tmp_path} --json --quiet"
    capsys.readouterr()
    entries = "mass", "−τ21", "−τ32", "−D2", "pca", "supervised_trees"
    assert main([*words.split(), "--entries", *entries]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["trials"] == 5 and list(said["not_available"]) == ["supervised_trees"]
    board = load_board(tmp_path)
    assert {r["entry"] for r in board.rows} == set(entries) - {"supervised_trees"}
    known = [
        complete(Jets.from_hdf5(delphes / f"{k}.h5")).observables["d2"] for k in ("test", "top")
    ]
    labels = np.repeat([0, 1], [len(x) for x in known])
    assert board.row("qcd", "−D2", "top")["auc_unmatched"] == pytest.approx(
        roc_auc_score(labels, -np.concatenate(known)), abs=1e-9
    )
    assert "not available: no jets of top to train on" in (tmp_path / "board.html").read_text()


def test_delphes_files_reach_a_report(delphes, tmp_path, capsys):
    assert main(["train", "pca", f"{delphes}/train.h5", "--out", f"{tmp_path}/pca", "--quiet"]) == 0
    words = f"evaluate {tmp_path}/pca --background {delphes}/test.h5 --signal top={delphes}/top.h5"
    assert main([*words.split(), "--out", f"{tmp_path}/report", "--quiet"]) == 0
    results = json.loads((tmp_path / "report/results.json").read_text())
    assert {"-tau21", "-tau32", "-d2"} <= set(results["twins"])


def samples(delphes, weighted=False):
    jets = [Jets.from_hdf5(delphes / f"{k}.h5") for k in ("train", "test", "top")]
    if weighted:
        rng = np.random.default_rng(0)
        for j in jets:
            j.observables["weight"] = rng.integers(1, 4, len(j)).astype(float)
    return {"qcd": jets[0]}, {"qcd": jets[1], "top": jets[2]}


CHEAP = [Entry("cut", "mass", {"observable": "mass"}), Entry("pca")]


def test_an_executor_gives_the_same(delphes, tmp_path):
    train, test = samples(delphes)
    how = dict(entries=CHEAP, directions={"qcd": ("top",)}, seeds=1, progress=False)
    here = compare(train, test, tmp_path / "here", **how)
    with ProcessPoolExecutor(1, get_context("spawn")) as executor:  # a fork of threads can hang
        there = compare(train, test, tmp_path / "there", executor=executor, **how)
    for a, b in zip(here, there):
        np.testing.assert_array_equal(a.scores("top"), b.scores("top"))


def test_seeds_trained_at_once_reach_the_board_as_those_one_by_one(delphes, tmp_path, monkeypatch):
    train, test = samples(delphes)
    entry = Entry("vae", "vae", dict(hidden=[16], latent=2), dict(epochs=2, device="cpu"))
    how = dict(entries=[entry], directions={"qcd": ("top",)}, seeds=2, progress=False)
    alone, calls = compare(train, test, tmp_path / "alone", **how), []

    def counted(detector, jets, validation, seeds, **settings):
        calls.append(list(seeds))
        return fit_at_once(detector, jets, validation, seeds, **settings)

    monkeypatch.setattr(trials, "at_once", lambda name, settings: True)  # as on a GPU
    monkeypatch.setattr(trials, "fit_at_once", counted)
    together = compare(train, test, tmp_path / "together", **how)
    assert calls == [[0, 1]] and [t.seed for t in together] == [0, 1]
    for a, b in zip(alone, together):
        np.testing.assert_allclose(a.scores("top"), b.scores("top"), rtol=1e-4)
    assert not np.allclose(*(t.scores("top") for t in together), rtol=1e-3)


def test_what_cannot_be_trained_at_once_is_trained_one_by_one(tmp_path, monkeypatch):
    def several(jobs):
        raise ValueError("not at once")

    monkeypatch.setattr(trials, "at_once", lambda name, settings: name == "vae")
    jobs = [
        dict(detector=name, settings={}, seed=seed, folder=str(tmp_path / f"{name}{seed}"))
        for name in ("vae", "vae", "pca")
        for seed in (0, 1)
    ]
    jobs[2]["x"] = jobs[3]["x"] = 1  # another group
    assert trials._groups(jobs, range(6)) == [[0, 1], [2, 3], [4], [5]]
    made = run_trials(lambda job: {"seed": job["seed"]}, jobs, several=several, progress=False)
    assert [r["seed"] for r in made] == [0, 1, 0, 1, 0, 1]


def test_a_missing_package_is_a_row(delphes, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    train, test = samples(delphes)
    entries = [CHEAP[0], Entry("isolation_forest")]
    trials = compare(
        train,
        test,
        tmp_path,
        entries=entries,
        directions={"qcd": ("top",)},
        seeds=2,
        progress=False,
    )
    board = judge(trials, test, n=3)
    (missing,) = board.missing
    assert missing["entry"] == "isolation_forest" and missing["trials"] == 2
    assert "sklearn" in missing["reason"] and [r["entry"] for r in board.rows] == ["mass"]


def test_every_default_entry_can_be_named():
    assert len({e.slug for e in default_entries()}) == len(default_entries())


def test_weights_on_the_board_are_scikit_learns(delphes, tmp_path):
    train, test = samples(delphes, weighted=True)
    trials = compare(
        train,
        test,
        tmp_path,
        entries=CHEAP[:1],
        directions={"qcd": ("top",)},
        seeds=1,
        progress=False,
    )
    row = judge(trials, test, n=3).row("qcd", "mass", "top")
    labels = np.repeat([0, 1], [len(test[k]) for k in ("qcd", "top")])
    scores = np.concatenate([test[k].observables["mass"] for k in ("qcd", "top")])
    weights = np.concatenate([test[k].weight for k in ("qcd", "top")])
    expected = roc_auc_score(labels, scores, sample_weight=weights)
    assert row["auc_unmatched"] == pytest.approx(expected, abs=1e-9)
    plain = {
        k: replace(j, observables={**j.observables, "weight": np.ones(len(j))})
        for k, j in test.items()
    }
    assert (
        judge(trials, plain, n=3).row("qcd", "mass", "top")["auc_unmatched"] != row["auc_unmatched"]
    )


def test_a_scan_goes_on_without_the_training_that_fails(delphes, tmp_path, monkeypatch):
    from jet_anomaly.experiment import scan as module

    honest = module.train_one

    def failing(job):
        if (job["value"], job["seed"]) == (4, 1):
            raise FloatingPointError("diverged")
        return honest(job)

    train, test = samples(delphes)
    how = dict(seeds=2, epochs=1, device="cpu", progress=False)
    monkeypatch.setattr(module, "train_one", failing)
    found = scan("dense_ae", "latent", (2, 4), train["qcd"], test["qcd"], tmp_path, **how)
    assert found.missing == {(4, 1): "diverged"} and np.isnan(found.losses).sum() == 1
    began = (tmp_path / "scan.json").read_bytes()
    assert (
        describe(tmp_path)["made_by"] == made_by() and describe(tmp_path)["settings"]["epochs"] == 1
    )
    monkeypatch.setattr(module, "train_one", honest)
    again = scan("dense_ae", "latent", (2, 4), train["qcd"], test["qcd"], tmp_path, **how)
    assert not again.missing and again.rows[:3] == found.rows[:3]
    assert (tmp_path / "scan.json").read_bytes() == began
    with pytest.raises(ValueError, match="another scan"):
        scan(
            "dense_ae", "latent", (2, 8), train["qcd"], test["qcd"], tmp_path, **how | {"epochs": 2}
        )


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_jet_of_one_constituent_is_ordinary_on_board_and_report(delphes, value):
    jets = Jets.from_hdf5(delphes / "test.h5")[:4]
    jets.mask[0, 1:], jets.p4[0, 1:] = False, 0
    jets.observables["n_constituents"] = jets.mask.sum(1)
    jets.observables["tau21"] = np.float32([value, 0.3, 0.4, 0.5])
    own = {k: v for k, v in jets.observables.items() if not k.startswith("tau")}
    for j in (jets, replace(jets, observables=own)):
        done = complete(j)
        assert done.observables["tau21"][0] == 1 and (done.observables["tau21"][1:] < 1).all()
        sample = Sample({"s": np.zeros(4)}, done.observables)
        np.testing.assert_allclose(score_of(sample, "-tau21"), -done.observables["tau21"])


def test_an_undefined_correlation_has_one_value():
    assert UNDEFINED["d2"] == substructure.UNDEFINED


def test_ratios_are_those_of_the_jets_own_tau_and_columns_of_nan_are_computed(delphes, tmp_path):
    jets = Jets.from_hdf5(delphes / "test.h5")[:20]
    jets.observables |= {"tau1": np.full(20, 0.4, np.float32), "tau2": np.full(20, 0.1, np.float32)}
    done = complete(jets)
    np.testing.assert_allclose(done.observables["tau21"], 0.25)
    jets.observables |= {k: np.full(20, np.nan, np.float32) for k in ("tau21", "tau32", "d2")}
    path, _ = as_file(jets.to_hdf5(tmp_path / "nan.h5"), "test", tmp_path)
    filled = Jets.from_hdf5(path)
    for name in "tau21", "tau32", "d2":
        np.testing.assert_allclose(filled.observables[name], done.observables[name], rtol=1e-6)
        assert name in filled.meta["computed_observables"]
