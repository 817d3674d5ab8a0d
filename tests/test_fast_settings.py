"Settings made for a GPU must give the same detector on the CPU: reduced precision, compiled arithmetic, stored pictures."

import sys

import numpy as np
import pytest
import torch
from helpers import python
from test_contract import TEST, TRAIN

from jet_anomaly.detect.detector import make_detector

IMAGES = {
    "image_ae": dict(pixels=8, width=4, hidden=8, encoding=2),
    "channel_vae": dict(channels=("pt", "d0"), width=4),
}


def fitted(name, device="cpu", **settings):
    detector = make_detector(name, **IMAGES[name])
    history = detector.fit(
        TRAIN, TEST, epochs=2, batch_size=50, device=device, progress=False, **settings
    )
    return detector, history["valid_loss"]


@pytest.mark.parametrize("name", IMAGES)
def test_reduced_precision_trains_alike(name):
    exact, reduced = fitted(name)[1], fitted(name, precision="bf16")[1]
    np.testing.assert_allclose(reduced, exact, rtol=0.02)


@pytest.mark.parametrize("name", IMAGES)
def test_pictures_are_made_in_single_precision(name):
    detector, _ = fitted(name)
    columns = detector.columns(TEST)
    (expected,) = detector.inputs(*columns)
    with torch.autocast("cpu", torch.bfloat16):
        (image,) = detector.inputs(*columns)
    assert image.dtype == torch.float32 and torch.equal(image, expected)


@pytest.mark.parametrize("name", IMAGES)
def test_stored_pictures_train_alike(name):
    made, stored = fitted(name), make_detector(name, **IMAGES[name], stored=True)
    history = stored.fit(TRAIN, TEST, epochs=2, batch_size=50, device="cpu", progress=False)
    np.testing.assert_allclose(history["valid_loss"], made[1], rtol=1e-4)


@pytest.mark.parametrize("name", IMAGES)
def test_weights_lie_channels_last(name):
    detector, _ = fitted(name)
    weight = next(m.weight for m in list(detector.encoder)[1:] if isinstance(m, torch.nn.Conv2d))
    assert weight.is_contiguous(memory_format=torch.channels_last)


def test_compiled_arithmetic_trains_alike(monkeypatch):
    "Traced whole, as for a GPU; the slow last step, code for this machine, is left out."
    original = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self: original(self, backend="aot_eager")
    )
    exact, (detector, compiled) = fitted("image_ae")[1], fitted("image_ae", compile=True)
    np.testing.assert_allclose(compiled, exact, rtol=1e-3)
    assert detector._compiled_call_impl is not None and not any(
        "_orig_mod" in k for k in detector.state_dict()
    )


GROWTH = """
import resource, numpy as np, torch
from jet_anomaly.jet.jets import Jets
from jet_anomaly.detect.detector import make_detector
torch.set_num_threads(1)
rng = np.random.default_rng(0)
pt, (eta, phi) = -np.sort(-rng.exponential(50, (40_000, 6)).astype(np.float32)), rng.normal(0, .3, (2, 40_000, 6)).astype(np.float32)
jets = Jets(np.stack([pt * np.cosh(eta), pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)], -1), np.ones(pt.shape, bool))
detector = make_detector("image_ae", width=2, hidden=4, encoding=2)
settings = dict(epochs=1, batch_size=1000, device="cpu", progress=False)
detector.fit(jets[:10_000], jets[:10_000], **settings)
detector.anomaly_score(jets[:10_000])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
detector.fit(jets, jets[:10_000], **settings)
detector.anomaly_score(jets)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="ru_maxrss is in other units elsewhere"
)
def test_the_pictures_of_all_jets_are_never_held():
    grown = int(python("-c", GROWTH).splitlines()[-1])
    assert grown < 40_000 * 1600 * 4 / 2, (
        f"memory grew by {grown / 1e6:.0f} MB; the pictures of all jets are 256 MB"
    )
