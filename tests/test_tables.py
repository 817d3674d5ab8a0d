"""The files of the VRNN's published program, against an excerpt of the real ones."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from jet_anomaly.data.arrays import HLVS
from jet_anomaly.data.read import read
from jet_anomaly.detect.tables import high_level, write_processed

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def excerpt():
    folder = (
        Path(os.environ.get("JET_ANOMALY_TEST_DATA", ROOT.parent / "shared" / "data"))
        / "vrnn_2prong"
    )
    if not folder.is_dir():
        pytest.skip(
            "the real two-prong events are not at hand: set JET_ANOMALY_TEST_DATA to the folder that holds vrnn_2prong"
        )
    return read(
        folder / "events_anomalydetection_VRNN_2Prong_Signal.hdf5",
        "vrnn",
        leading=2,
        progress=False,
    )


def test_high_level_variables_are_those_of_the_published_files(excerpt):
    bare = excerpt[:]
    bare.observables = {k: v for k, v in excerpt.observables.items() if k not in HLVS}
    for name, values in high_level(bare).items():
        theirs = excerpt.observables[name]
        close = np.isclose(values, theirs, rtol=2e-3, atol=1e-4)
        assert close.mean() > 0.9, (name, close.mean())  # a few jets have their axes elsewhere


def test_processed_jets_are_aligned(excerpt, tmp_path):
    assert write_processed(tmp_path / "processed.h5", excerpt) == len(excerpt)
    with h5py.File(tmp_path / "processed.h5") as file:
        share, eta, phi = np.moveaxis(file["constituents"][()], -1, 0)
        n = file["length"][()]
        np.testing.assert_allclose(file["hlvs"][:, 0], excerpt.observables["c2"], rtol=1e-6)
    energy, pz = (share * np.cosh(eta)).sum(1), (share * np.sinh(eta)).sum(1)
    px, py = (share * np.cos(phi)).sum(1), (share * np.sin(phi)).sum(1)
    mass = np.sqrt(np.maximum(energy**2 - px**2 - py**2 - pz**2, 0))[n > 2]
    np.testing.assert_allclose(mass / energy[n > 2], 0.25, atol=2e-3)  # m0 / E0
