"Published energy-based model: the walk's gradient is alive, settings made for a GPU train alike on the CPU, a run that is resumed keeps its walkers."

import numpy as np
import pytest
import torch
from test_contract import TEST, TRAIN

from jet_anomaly.detect.detector import detector_class, make_detector
from jet_anomaly.train.checkpoint import read_checkpoint
from jet_anomaly.train.loop import Step

SMALL = detector_class("ebm_published").small


def fitted(**settings):
    detector = make_detector("ebm_published", **SMALL)
    return detector, detector.fit(
        TRAIN, TEST, epochs=2, batch_size=50, device="cpu", progress=False, **settings
    )


def gradients(detector, term):
    "Of a term, with the same random numbers every time."
    torch.manual_seed(0)
    detector.zero_grad()
    detector.train()
    value = detector.terms(*detector.columns(TEST), step=Step())[term].mean()
    if value.requires_grad:
        value.backward()
    return [p.grad for p in detector.parameters() if p.grad is not None and p.grad.abs().sum() > 0]


@pytest.mark.parametrize("term", ["kl", "repel"])
def test_gradients_reach_the_weights_through_the_last_step(term, monkeypatch):
    detector, _ = fitted()
    assert gradients(detector, term)
    whole = type(detector).last_step
    monkeypatch.setattr(
        type(detector), "last_step", lambda self, *args: whole(self, *args).detach()
    )
    assert not gradients(detector, term), (
        "the graph is cut and there is a gradient: the term does not go through the walk"
    )


def test_walking_makes_no_gradients_of_weights():
    detector, _ = fitted()
    detector.zero_grad()
    x, mask = detector.columns(TEST)
    detector.walk(x, mask, 3)
    assert all(p.grad is None for p in detector.parameters())


def test_reduced_precision_trains_alike():
    exact, reduced = (
        fitted()[0].anomaly_score(TEST),
        fitted(precision="bf16")[0].anomaly_score(TEST),
    )
    assert np.corrcoef(exact, reduced)[0, 1] > 0.95


def test_a_compiled_network_trains_alike(monkeypatch):
    "Traced whole, as for a GPU; the slow last step, code for this machine, is left out."
    original = torch.nn.Module.compile
    monkeypatch.setattr(
        torch.nn.Module, "compile", lambda self: original(self, backend="aot_eager")
    )
    (_, exact), (detector, compiled) = fitted(), fitted(compile=True)
    assert detector.net._compiled_call_impl is not None and not any(
        "_orig_mod" in k for k in detector.state_dict()
    )
    np.testing.assert_allclose(
        compiled["train_energy"], exact["train_energy"], rtol=0.02, atol=0.02
    )


def test_a_resumed_run_has_walkers_and_moments(tmp_path):
    fitted(folder=tmp_path)
    tensors, _ = read_checkpoint(tmp_path / "last.safetensors")
    assert tensors["model.replay.age"].max() > 0 and tensors["model.replay.x"].abs().max() > 0
    assert any(k.startswith("optimizer.") and k.endswith("exp_avg_sq") for k in tensors)


def test_walkers_of_the_last_fit_are_forgotten():
    detector, _ = fitted()
    expected = detector.anomaly_score(TEST)
    detector.fit(TRAIN, TEST, epochs=2, batch_size=50, device="cpu", progress=False)
    np.testing.assert_allclose(detector.anomaly_score(TEST), expected, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        dict(sampler="hmc", step=0.3),
        dict(kl=0.0, repel=0.0),
        dict(robust=False, step=0.01, noise=0.01),
        dict(groups=3),
    ],
)
def test_every_setting_trains(options):
    detector = make_detector("ebm_published", **SMALL | options)
    history = detector.fit(TRAIN, TEST, epochs=1, batch_size=50, device="cpu", progress=False)
    assert (
        np.isfinite(history["train_loss"]).all() and np.isfinite(detector.anomaly_score(TEST)).all()
    )
    assert ("train_cosine" in history.rows[0]) == (options.get("sampler") == "hmc") and (
        "train_kl" in history.rows[0]
    ) == (detector.config.kl > 0 and detector.config.sampler == "langevin")


def test_a_run_that_diverges_says_so():
    detector = make_detector("ebm_published", **SMALL | dict(regularisation=0.0, kl=0.0, repel=0.0))
    with pytest.raises(FloatingPointError, match="diverged"):
        detector.fit(
            TRAIN, TEST, epochs=3, batch_size=50, device="cpu", progress=False, lr=1e15, clip=None
        )
