"""Jets at the edge of what can occur, for the tests of numbers and of the contract."""

import numpy as np

from jet_anomaly.jet.jets import Jets, concatenate

WIDTH = 40


def vectors(n=12, width=WIDTH, pt=600.0, eta=0.0, spread=0.25, seed=0):
    "Massless constituents around an axis, (n, width, 4) in double precision, the hardest first."
    rng = np.random.default_rng(seed)
    p = -np.sort(-rng.exponential(1, (n, width)), 1)
    p *= pt / p.sum(1, keepdims=True)
    y, f = eta + rng.normal(0, spread, (n, width)), rng.normal(0, spread, (n, width))
    return np.stack([p * np.cosh(y), p * np.cos(f), p * np.sin(f), p * np.sinh(y)], -1)


EXTREME = {
    "ordinary": vectors(),
    "1 MeV": vectors(pt=1e-3),
    "10 TeV": vectors(pt=1e4),
    "collinear": vectors(spread=1e-5),
    "one constituent": vectors(width=1),
    "two constituents": vectors(width=2),
    "500 constituents": vectors(n=2, width=500),
    "eta 4": vectors(eta=4.0, pt=100.0),
    "eta 8": vectors(eta=8.0, pt=2.0),
    "along the beam": np.array([[[100, 0, 0, 100], [10, 0, 0, -5], [0, 0, 0, 0]]], float),
}


def jets_of(p4):
    "Jets with the features and observables that a detector may ask for."
    n, width = p4.shape[:2]
    names = "d0", "d0_err", "dz", "dz_err"
    features = {k: np.full((n, width), 0.05, np.float32) for k in names}
    features |= {k: np.ones((n, width), np.int32) for k in ("pdgid", "charge")}
    jets = Jets.from_constituents(p4, features=features)
    named = "tau1", "tau2", "tau3", "tau4", "tau21", "tau32", "d2", "softdrop_mass"
    jets.observables |= {k: np.full(n, 0.5, np.float32) for k in named}
    return jets


def all_extremes():
    "All of them in one sample."
    return concatenate([jets_of(p4) for p4 in EXTREME.values()])
