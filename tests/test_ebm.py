"Energy-based models on whitened jets: chains, averaged weights, a run that is resumed, generation."

import numpy as np
import pytest
import torch
from test_contract import TEST, TRAIN

from jet_anomaly.detect.detector import detector_class, make_detector
from jet_anomaly.jet.jets import Jets
from jet_anomaly.train.checkpoint import read_checkpoint

SMALL = detector_class("ebm").small
FIT = dict(epochs=2, batch_size=50, device="cpu", progress=False)


def fitted(**options):
    detector = make_detector("ebm", **SMALL | options)
    detector.fit(TRAIN, TEST, **FIT)
    return detector


def test_averaged_weights_score_and_are_those_of_no_single_step():
    detector = fitted()
    pairs = zip(detector.net.parameters(), detector.averaged.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)
    before = detector.anomaly_score(TEST, device="cpu")
    with torch.no_grad():
        for p in detector.net.parameters():
            p.zero_()
    np.testing.assert_array_equal(detector.anomaly_score(TEST, device="cpu"), before)


def test_chains_keep_the_density_they_are_given():
    "Walkers that start from the reference stay there while the correction is zero: an exact answer."
    detector = fitted(walkers=500)
    with torch.no_grad():
        for p in detector.averaged.parameters():
            p.zero_()
    detector.step_size.fill_(0.3)
    mask = torch.ones(2000, SMALL["n_constituents"], dtype=torch.bool)
    g = torch.Generator().manual_seed(0)
    z, accepted = detector.propose(detector.reference(mask, g), mask, 20, g)
    assert accepted > 0.8
    radius = z.square().sum((1, 2))  # χ² with 3 n degrees of freedom
    assert abs(float(radius.mean()) / (3 * SMALL["n_constituents"]) - 1) < 0.03


def test_padding_never_moves():
    detector = fitted()
    mask = torch.arange(SMALL["n_constituents"]) < torch.tensor([[3], [8], [1]])
    g = torch.Generator().manual_seed(0)
    z, _ = detector.propose(detector.reference(mask, g), mask, 3, g)
    assert (z[~mask] == 0).all() and (z[mask] != 0).all()


def test_a_resumed_run_has_its_chains_and_its_averages(tmp_path):
    detector = make_detector("ebm", **SMALL)
    detector.fit(TRAIN, TEST, folder=tmp_path, **FIT)
    tensors, _ = read_checkpoint(tmp_path / "last.safetensors")
    assert tensors["model.replay.age"].max() > 0 and "model.step_size" in tensors
    again = make_detector("ebm", **SMALL)
    again.fit(TRAIN, TEST, folder=tmp_path, **FIT)
    np.testing.assert_array_equal(
        again.anomaly_score(TEST, device="cpu"), detector.anomaly_score(TEST, device="cpu")
    )


@pytest.mark.parametrize("name", ["ebm", "ebm_mlp"])
def test_generated_jets_are_jets_of_the_same_seed(name):
    detector = make_detector(name, **detector_class(name).small)
    detector.fit(TRAIN, TEST, **FIT)
    a, b = (detector.generate(30, seed=3, steps=2, device="cpu") for _ in range(2))
    np.testing.assert_array_equal(a.p4, b.p4)
    assert len(a) == 30 and np.isfinite(a.p4).all()


def test_energies_differ_by_the_stated_measures():
    detector = fitted()
    scores = detector.scores(TEST, device="cpu")
    np.testing.assert_allclose(
        scores["energy"] - scores["reference"], scores["correction"], atol=1e-3
    )
    np.testing.assert_allclose(
        scores["energy_phase_space"] - scores["energy"],
        scores["reference_phase_space"] - scores["reference"],
        atol=1e-3,
    )


def weighted(jets, w):
    observables = jets.observables | {"weight": np.asarray(w, np.float32)}
    return Jets(jets.p4, jets.mask, jets.features, observables, jets.labels, jets.meta)


def test_chains_have_the_lengths_of_the_weighted_jets():
    "Jets of weight zero lend their lengths to no walker."
    n = np.minimum(TRAIN.mask.sum(1), SMALL["n_constituents"])
    short = n < SMALL["n_constituents"]
    assert 0 < short.sum() < len(n), "the sample must have jets of both kinds"
    detector = make_detector("ebm", **SMALL)
    detector.fit(weighted(TRAIN, ~short), TEST, **FIT)
    walked = detector.replay.mask[detector.replay.age > 0]
    assert len(walked) and walked.all()


def test_the_classifier_learns_from_weighted_jets():
    "Classes of weight zero are never the answer."
    labels = np.arange(len(TRAIN)) % 3
    jets = weighted(TRAIN, labels != 2)
    jets = Jets(jets.p4, jets.mask, jets.features, jets.observables, labels, jets.meta)
    detector = make_detector("ebm_clf", **SMALL | dict(joint=False))
    detector.fit(jets, epochs=20, lr=1e-2, batch_size=50, device="cpu", progress=False)
    p = detector.compute(detector.class_terms, TEST, device="cpu")["probabilities"]
    assert (p.argmax(1) != 2).mean() > 0.95


@pytest.mark.parametrize("network", ["sets", "transformer", "list"])
def test_every_network_trains(network):
    detector = fitted(network=network)
    assert np.isfinite(detector.anomaly_score(TEST, device="cpu")).all()


def test_the_mean_of_a_length_is_taken_out():
    detector = fitted()
    scores = detector.scores(TRAIN, device="cpu")
    n = np.minimum(TRAIN.mask.sum(1), SMALL["n_constituents"])
    off = scores["energy_phase_space"] - scores["energy_given_n"]
    np.testing.assert_allclose(off, detector.level.numpy()[n], atol=1e-2)
    often = n == np.bincount(n).argmax()
    assert abs(scores["energy_given_n"][often].mean()) < scores["energy_phase_space"].std()
