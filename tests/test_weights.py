"""Event weights in training, against copies of the jets, NumPy and dcor."""

import numpy as np
import pytest
import torch
from test_contract import HELD_OUT, TEST, TRAIN

from jet_anomaly.detect.detector import Penalty, make_detector
from jet_anomaly.detect.disco import DisCo
from jet_anomaly.detect.exposure import OutlierExposure
from jet_anomaly.evaluate.distance import distance_correlation
from jet_anomaly.jet.jets import Jets, concatenate

N = len(TRAIN)
WEIGHT = 1.0 + (np.arange(N) < N // 2)  # the first half counts twice


def weighted(jets, weight):
    return Jets(
        jets.p4, jets.mask, jets.features, jets.observables | {"weight": weight}, jets.labels
    )


WEIGHTED = weighted(TRAIN, WEIGHT)
TWICE = concatenate([TRAIN, TRAIN[: N // 2]])
SMALL = dict(hidden=(32, 16), latent=4)


def trained(jets, penalties=(), monkeypatch=None, **settings):
    "A dense autoencoder that sees all jets in one batch, in units that no weight changes."
    detector = make_detector("dense_ae", **SMALL)
    detector.representation.fit(TRAIN)
    detector.representation.fit = lambda jets: None
    settings = dict(epochs=8, batch_size=10_000, lr=1e-2, device="cpu", progress=False) | settings
    history = detector.fit(jets, penalties=penalties, **settings)
    return detector, history


def test_a_jet_of_weight_two_trains_like_two_jets():
    plain, by_weight, by_copy = (trained(j)[0] for j in (TRAIN, WEIGHTED, TWICE))
    a, b, c = (d.anomaly_score(TEST) for d in (plain, by_weight, by_copy))
    np.testing.assert_allclose(b, c, rtol=2e-3)
    assert np.abs(a - c).max() > 20 * np.abs(b - c).max(), "the weights make no difference"


def test_the_recorded_loss_is_the_weighted_mean():
    detector, history = trained(WEIGHTED, lr=1e-12, epochs=1)
    (x,) = detector.columns(TRAIN)
    by_hand = np.average(detector.terms(x)["loss"].detach(), weights=WEIGHT)
    assert history["train_loss"][0] == pytest.approx(by_hand, rel=1e-5)


def test_validation_weights_judge_the_epochs():
    w = np.random.default_rng(0).uniform(1, 3, len(HELD_OUT))
    detector, history = trained(TRAIN, validation=weighted(HELD_OUT, w), epochs=1)
    (x,) = detector.columns(HELD_OUT)
    by_hand = np.average(detector.terms(x)["loss"].detach(), weights=w)
    assert history["valid_loss"][0] == pytest.approx(by_hand, rel=1e-5)
    s, kept = detector.anomaly_score(HELD_OUT), detector.background
    np.testing.assert_allclose(kept.weights / kept.weights.sum(), w / w.sum())
    by_hand = np.array([w[s >= v].sum() / w.sum() for v in s])
    counted = by_hand > 0.15  # beyond, where few jets are left, the calibration is a fit
    p = detector.p_value(HELD_OUT)
    np.testing.assert_allclose(p[counted], by_hand[counted], atol=0.02)


def test_pca_diagonalises_the_weighted_covariance():
    pca = make_detector("pca", components=3)
    pca.fit(WEIGHTED, progress=False)
    x = pca.columns(TRAIN)[0].double().numpy()
    mean = np.average(x, axis=0, weights=WEIGHT)
    values, vectors = np.linalg.eigh(np.cov(x.T, aweights=WEIGHT, bias=True))
    y = pca.columns(TEST)[0].double().numpy() - mean
    kept = vectors[:, -3:]
    by_hand = ((y - y @ kept @ kept.T) ** 2).mean(1)
    np.testing.assert_allclose(pca.anomaly_score(TEST), by_hand, rtol=1e-3)


def test_the_mean_image_is_the_weighted_mean():
    by_weight, by_copy = (make_detector("mean_image", pixels=8) for _ in range(2))
    by_weight.fit(WEIGHTED)
    by_copy.fit(TWICE)
    torch.testing.assert_close(by_weight.mean, by_copy.mean, rtol=1e-4, atol=1e-6)


def test_a_forest_never_sees_jets_of_weight_zero():
    far = np.arange(N) % 3 == 0
    jets = weighted(TRAIN, np.where(far, 0.0, 1.0))
    jets.observables["mass"] = np.where(far, 1e6, jets.observables["mass"]).astype(np.float32)
    forest = make_detector("isolation_forest", trees=20, sample=64)
    forest.fit(jets)
    assert forest.threshold.max() < 1e5


@pytest.mark.parametrize("squared", [True, False])
def test_weighted_distance_correlation_is_that_of_copies(squared, dcor):
    rng = np.random.default_rng(1)
    x = torch.tensor(rng.normal(size=60), requires_grad=True)
    y, copies = torch.tensor(rng.normal(size=60)) + x.detach() ** 2, rng.integers(0, 4, 60)
    value = distance_correlation(x, y, torch.tensor(copies, dtype=torch.float64), squared)
    which = np.repeat(np.arange(60), copies)
    theirs = dcor.distance_correlation_sqr if squared else dcor.distance_correlation
    a, b = (v.detach().numpy()[which] for v in (x, y))
    assert value.item() == pytest.approx(theirs(a, b), abs=1e-5)
    (mine,) = torch.autograd.grad(value, x)
    (copied,) = torch.autograd.grad(distance_correlation(x[which], y[which], squared=squared), x)
    torch.testing.assert_close(mine, copied, atol=1e-5, rtol=1e-3)


def test_penalties_weigh_the_jets():
    outliers = dict(outliers=HELD_OUT, ramp="none", match="none", ratio=3.0)
    for name, make in {
        "disco": lambda: DisCo(ramp="none", weight=1.0),
        "exposure": lambda: OutlierExposure(**outliers),
    }.items():
        zero = weighted(TRAIN, np.where(np.arange(N) < N // 2, 1.0, 0.0))
        value = trained(zero, [make()], lr=1e-12, epochs=1)[1][f"train_{name}"][0]
        if name == "disco":
            half = trained(TRAIN[: N // 2], [make()], lr=1e-12, epochs=1)[1]["train_disco"][0]
            assert value == pytest.approx(half, rel=1e-4)
        assert np.isfinite(value) and value > 0


def test_what_cannot_be_weighed_is_refused():
    negative = weighted(TRAIN, np.where(np.arange(N) < 5, -1.0, 1.0))
    for name in "vae", "pca", "cut":
        with pytest.raises(ValueError, match="5 of 300 event weights are negative"):
            make_detector(name).fit(negative, progress=False)
        with pytest.raises(ValueError, match="event weights are negative"):
            make_detector(name).fit(TRAIN, negative, epochs=1, progress=False)

    class Deaf(Penalty):
        name = "deaf"

    with pytest.raises(ValueError, match="deaf"):
        make_detector("vae").fit(WEIGHTED, penalties=[Deaf()], progress=False)
