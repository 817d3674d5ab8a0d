"""Extreme jets in single and in double precision: every observable is finite, and the two agree. (Losses: test_contract.)"""

import numpy as np
import pytest
import torch
from extremes import EXTREME

from jet_anomaly.core.kernels import kernels
from jet_anomaly.jet.observables import observables
from jet_anomaly.jet.substructure import substructure

# what single precision cannot hold: a mass is the small difference of large numbers there
LOST = {
    "collinear": ("mass", "softdrop", "girth", "tau", "c2", "d2", "sqrt_d", "lund"),
    "eta 8": ("",),  # nothing: rounding looks like mass there, and no LHC detector sees so far
    "eta 4": ("softdrop",),
}


def both(p4):
    "The same jets in single and in double precision; the doubles are those of the singles."
    single = torch.from_numpy(p4.astype(np.float32))
    return single, single.double(), single[..., 0] > 0


@pytest.mark.parametrize("on", [0, 1], ids=["definitions", "kernels"])
@pytest.mark.parametrize("name", EXTREME)
def test_substructure_in_both_precisions(name, on):
    single, double, mask = both(EXTREME[name])
    with kernels(on):
        found, exact = substructure(single, mask), substructure(double, mask)
    for k in exact:
        a, b = np.asarray(found[k], float), np.asarray(exact[k], float)
        assert np.isfinite(a).all() and np.isfinite(b).all(), k
        if not k.startswith(LOST.get(name, ("no",))):
            scale = max(np.abs(b).max(), 1e-6)
            assert np.quantile(np.abs(a - b), 0.9) <= 2e-3 * scale, (k, a, b)


@pytest.mark.parametrize("name", EXTREME)
def test_the_observables_are_finite(name):
    p4 = EXTREME[name].astype(np.float32)
    found = observables(p4)
    assert np.isfinite(found).all(), np.argwhere(~np.isfinite(found))[:5]
