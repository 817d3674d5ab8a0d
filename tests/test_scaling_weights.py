"""Event weights in the fitted constants of representations: against copies of the jets and NumPy."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_contract import HELD_OUT, TRAIN
from test_weights import TWICE, WEIGHT, WEIGHTED, N, weighted

from jet_anomaly.detect.vrnn import FARTHEST, Sequences
from jet_anomaly.jet.jets import concatenate
from jet_anomaly.jet.substructure import UNDEFINED
from jet_anomaly.represent.images import ChannelImages
from jet_anomaly.represent.scale import ScaledFourVectors, mean_and_spread, quantiles
from jet_anomaly.represent.sequences import LogSequences
from jet_anomaly.represent.whitened import WhitenedJets

MAKE = {
    "four-vectors": ScaledFourVectors,
    "sequences": lambda: LogSequences(robust=True),
    "images": lambda: ChannelImages(("log_pt", "d0", "dz")),
    "whitened": lambda: WhitenedJets(5),
    "vrnn": lambda: Sequences(observables=("mass", "tau21")),
}


def constants(make, jets):
    return {k: v.double() for k, v in make().fit(jets).state_dict().items() if k != "fitted"}


def ones(jets):
    return weighted(jets, np.ones(len(jets)))


@pytest.mark.parametrize("name", MAKE)
def test_weight_two_is_two_jets(name):
    plain, by_weight, by_copy = (
        constants(MAKE[name], j) for j in (ones(TRAIN), WEIGHTED, ones(TWICE))
    )
    for k, v in by_weight.items():
        close = dict(rtol=3e-3, atol=1e-4) if name == "whitened" else dict(rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(v, by_copy[k], **close, msg=lambda m: f"{k}: {m}")
    apart = {k: float((plain[k] - v).abs().max()) for k, v in by_weight.items()}
    assert max(apart.values()) > 1e-3, "the weights make no difference"


@pytest.mark.parametrize("name", MAKE)
def test_the_unit_of_weights_and_jets_of_weight_zero_do_not_matter(name):
    first = constants(MAKE[name], WEIGHTED)
    extra = np.concatenate([3 * WEIGHT, np.zeros(len(HELD_OUT))])
    padded = constants(MAKE[name], weighted(concatenate([TRAIN, HELD_OUT]), extra))
    for k, v in first.items():
        torch.testing.assert_close(v, padded[k], rtol=1e-5, atol=1e-6, msg=lambda m: f"{k}: {m}")


def test_weighted_quantiles_and_spreads_are_those_of_copies():
    rng = np.random.default_rng(3)
    x, copies = torch.tensor(rng.normal(size=(50, 3))), rng.integers(1, 5, 50)
    repeated = np.repeat(x.numpy(), copies, 0)
    w = torch.tensor(copies, dtype=torch.float64)
    want = np.quantile(repeated, [0.1, 0.5, 0.9], axis=0, method="inverted_cdf")
    np.testing.assert_array_equal(quantiles(x, [0.1, 0.5, 0.9], w), want)
    mean, spread = mean_and_spread(x, w)
    np.testing.assert_allclose(mean, repeated.mean(0))
    np.testing.assert_allclose(spread, repeated.std(0))


def test_negative_weights_are_refused():
    for w in (np.where(np.arange(N) < 5, -1.0, 1.0), np.zeros(N)):
        for make in MAKE.values():
            with pytest.raises(ValueError, match="event weights are negative"):
                make().fit(weighted(TRAIN, w))


def test_undefined_observables_of_the_recurrent_autoencoder():
    "A NaN τ21 is 1, an undefined D2 lies at the edge and leaves the scale alone, any other NaN is an error."
    few = np.arange(N) < 3
    changed = {"tau21": np.where(few, np.nan, TRAIN.observables["tau21"])}
    changed |= {"d2": np.where(few, np.nan, TRAIN.observables["d2"])}
    jets = replace(TRAIN, observables=TRAIN.observables | changed)
    sequences = Sequences(observables=("tau21", "d2")).fit(jets)
    y = sequences.transform(jets)[2]
    one = (1 - sequences.centre[0]) / sequences.scale[0]
    torch.testing.assert_close(y[:3, 0], one.expand(3))
    assert (y[:3, 1] == FARTHEST).all()
    d2 = np.float32(TRAIN.observables["d2"][3:])
    d2 = d2[d2 < UNDEFINED]
    np.testing.assert_allclose(sequences.centre[1], d2.mean(), rtol=1e-5)
    np.testing.assert_allclose(sequences.scale[1], d2.std(), rtol=1e-5)
    for bad in (np.nan, np.inf):
        broken = replace(TRAIN, observables=TRAIN.observables | {"mass": np.where(few, bad, 100.0)})
        with pytest.raises(ValueError, match="'mass' is NaN or infinite for 3 of"):
            Sequences(observables=("mass",)).fit(broken)
