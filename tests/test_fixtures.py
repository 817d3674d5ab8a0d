"""Jet files and detectors saved by earlier versions still load and score as they did."""

import json

import numpy as np
import pytest
from helpers import ROOT

from jet_anomaly.detect.detector import load_detector
from jet_anomaly.jet.jets import Jets

FIXTURES = ROOT / "tests" / "fixtures"
EXPECTED = json.loads((FIXTURES / "expected.json").read_text())


def test_a_jet_file_of_0_1_0_loads():
    jets = Jets.from_hdf5(FIXTURES / "jets_0.1.0.h5")
    assert len(jets) == EXPECTED["jets"]["n"]
    for name in "pt", "mass":
        np.testing.assert_allclose(jets.observables[name][:4], EXPECTED["jets"][name], rtol=1e-6)


@pytest.mark.parametrize("name", ["vae", "pca", "vrnn"])
def test_a_detector_of_0_1_0_scores_as_it_did(name):
    jets = Jets.from_hdf5(FIXTURES / "jets_0.1.0.h5")
    scores = load_detector(FIXTURES / f"{name}_0.1.0").anomaly_score(jets, device="cpu")
    np.testing.assert_allclose(scores[:8], EXPECTED[name], rtol=1e-4, atol=1e-6)
