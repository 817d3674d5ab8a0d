"""A training on the command line that holds neither its jets nor what the network sees of them in memory."""

import json

import numpy as np
import pytest
import torch

from jet_anomaly.cli import detectors
from jet_anomaly.cli.main import main
from jet_anomaly.data.sample import packaged_jets
from jet_anomaly.detect.detector import load_detector, make_detector
from jet_anomaly.train import disk
from jet_anomaly.train.loop import Trainer


def test_train_streams_a_large_file(tmp_path, monkeypatch):
    jets = packaged_jets("qcd", 1500)
    jets.to_hdf5(tmp_path / "jets.h5")
    monkeypatch.setattr(detectors, "LOADED", 1000)
    monkeypatch.setenv("JET_ANOMALY_MEMORY", "0")
    made = []
    mapped = disk._mapped
    monkeypatch.setattr(disk, "_mapped", lambda *a: made.append(a) or mapped(*a))
    words = ["train", "vae", tmp_path / "jets.h5", "--out", tmp_path / "vae", "--epochs", 2]
    words += [
        "--validation",
        0.2,
        "--set",
        "hidden=16,8",
        "--quiet",
        "--device",
        "cpu",
        "--seed",
        5,
    ]
    assert main([str(w) for w in words]) == 0
    said = json.loads((tmp_path / "vae" / "config.json").read_text())
    assert said["provenance"]["training"]["jets"] == 1200
    assert [n for *_, n in made] == [1200, 300], "the columns were not on disk"
    # the held-out jets are those that Jets.split holds out
    detector, (_, held_out) = load_detector(tmp_path / "vae"), jets.split(0.8, 0.2, seed=5)
    np.testing.assert_allclose(
        np.sort(detector.background.scores["loss"]),
        np.sort(detector.anomaly_score(held_out, "loss", device="cpu")),
        rtol=1e-5,
    )


@pytest.mark.parametrize("name", ["disco_vae", "oe_vae"])
def test_columns_of_penalties_stay_with_their_jets_on_disk(tmp_path, monkeypatch, name):
    "Masses and outliers of the jets of a file: the same weights, to the bit, as from memory in the same order."
    jets = packaged_jets("qcd", 700)
    jets.observables["weight"] = np.random.default_rng(0).random(700).astype(np.float32)
    path, held_out = jets[:600].to_hdf5(tmp_path / "jets.h5"), jets[600:]

    def blocks(self, data, epoch):  # the order of a training from disk
        return disk.BlockOrder(len(data[0]), self.seed, epoch)

    def trained(jets):
        detector = make_detector(name, hidden=(16, 8), latent=2, ramp="none")
        how = dict(epochs=2, device="cpu", progress=False, schedule="none")
        how |= {"outliers": packaged_jets("top", 100)} if name == "oe_vae" else {}
        history = detector.fit(jets, held_out, **how)
        return [p.detach() for p in detector.parameters()], history

    monkeypatch.setattr(Trainer, "order", blocks)
    kept, told = trained(jets[:600])
    monkeypatch.setenv("JET_ANOMALY_MEMORY", "0")
    made, mapped = [], disk._mapped
    monkeypatch.setattr(disk, "_mapped", lambda *a: made.append(a) or mapped(*a))
    streamed, history = trained(path)
    assert made, "the columns were not on disk"
    assert all(map(torch.equal, kept, streamed))
    penalty = {"disco_vae": "train_disco", "oe_vae": "train_exposure"}[name]
    assert told[penalty] == history[penalty] and min(told[penalty]) > 0
