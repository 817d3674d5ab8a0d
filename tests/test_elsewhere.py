"""Every detector with its weights on another device, played by the CPU where there is no GPU: data has to follow them."""

import numpy as np
import pytest
import torch

if torch.cuda.is_available():
    pytest.skip("there is a GPU: test_contract.py uses it", allow_module_level=True)
elsewhere = pytest.importorskip("elsewhere", reason="this torch has no dispatch modes")

from test_contract import toy_jets  # noqa: E402

from jet_anomaly.detect.detector import detector_class, detector_names, load_detector, make_detector  # noqa: E402
from jet_anomaly.experiment.trials import fit_at_once  # noqa: E402
from jet_anomaly.train.record import CapturedStep, Flat  # noqa: E402

TRAIN, HELD_OUT, TEST = toy_jets(120, 0), toy_jets(20, 2), toy_jets(12, 1)


@pytest.fixture
def gpu():
    with elsewhere.gpu() as device:
        yield device


@pytest.mark.parametrize(
    "forgets",
    [
        lambda net, x: net(x),
        lambda net, x: net(x.to(net.weight.device)) + x,
        lambda net, x: net(x.to(net.weight.device)).detach().numpy(),
        lambda net, x: np.asarray(net.weight.detach()),
        lambda net, x: torch.cat([net.weight, torch.zeros(1, 3)]),
        lambda net, x: torch.randn(3, device=net.weight.device, generator=torch.Generator()),
        lambda net, x: x[net.weight.argmax(-1)],
        lambda net, x: net.weight.detach()[0].copy_(x[0]).add_(x[0]),
    ],
)
def test_code_that_forgets_to_move_its_data_stops(gpu, forgets):
    net, x = torch.nn.Linear(3, 3), torch.ones(3, 3)
    forgets(net, x)
    with pytest.raises((RuntimeError, TypeError), match="device|generator"):
        forgets(net.to("cuda"), x)


def test_code_that_moves_its_data_computes_as_before(gpu):
    "Training on the device that is played gives the weights of the CPU, to the bit."
    found = {}
    for device in "cpu", "cuda":
        torch.manual_seed(0)
        x, net = (
            torch.randn(64, 3),
            torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Linear(8, 3)),
        )
        x, net = x.to(device), net.to(device)
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01, fused=True)
        for rows in torch.arange(64).split(16):
            optimizer.zero_grad()
            ((net(x[rows]) - x[rows].roll(1, -1)) ** 2).mean().backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimizer.step()
        found[device] = net[0].weight.detach().cpu()
    assert torch.equal(found["cpu"], found["cuda"])


@pytest.mark.parametrize("name", detector_names())
@pytest.mark.filterwarnings("ignore:PyTorch was compiled without cuDNN")
@pytest.mark.filterwarnings("ignore::jet_anomaly.detect.background.OutsideWindow")
def test_data_follows_a_detector(gpu, name, tmp_path):
    "Trained and scored there by default, it comes back; where somebody has put it, its own inputs are found."
    detector = make_detector(name, **detector_class(name).small)
    detector.fit(TRAIN, HELD_OUT, epochs=1, batch_size=120, progress=False)
    assert detector.device.type == "cpu" and all(not p.is_cuda for p in detector.parameters())
    expected, there = detector.scores(TEST, device="cpu"), []
    detector.compute(lambda *x: there.extend(t.device for t in x) or {"x": x[0]}, TEST)
    assert set(there) == {gpu}
    detector.to("cuda")
    with torch.no_grad():
        direct = detector.score_terms(*detector.inputs(*detector.columns(TEST)))
    assert {v.device for v in direct.values()} == {gpu}
    for device in "auto", "cpu":
        found = detector.scores(TEST, device=device)
        assert detector.device == gpu
        for k, v in expected.items():
            np.testing.assert_allclose(found[k], v, rtol=1e-2, atol=1e-2 * max(v.std(), 1e-6))
    if hasattr(detector, "generate"):
        jets = detector.generate(4, steps=1)
        assert len(jets) == 4 and detector.device == gpu
    assert load_detector(detector.save(tmp_path)).device.type == "cpu"


def test_steps_captured_in_a_graph_are_those_of_the_cpu(gpu):
    "A training whose steps repeat a CUDA graph ends with the weights of the CPU, to the bit; a step that waits cannot be one."
    found = {}
    for device in "cpu", "cuda":
        torch.manual_seed(0)
        vae = make_detector("vae", **detector_class("vae").small)
        vae.fit(TRAIN, HELD_OUT, epochs=2, batch_size=50, device=device, progress=False)
        found[device] = vae.state_dict()
    assert all(torch.equal(v, found["cuda"][k]) for k, v in found["cpu"].items())
    flat = Flat([torch.nn.Parameter(torch.ones(3, device="cuda"))])
    waiting = CapturedStep(
        lambda x, step: {"loss": (flat.parameters[0] * x).sum() * float(x.sum())}, flat, 0
    )
    with pytest.raises(RuntimeError, match="capturing"):
        waiting(torch.ones(3, device="cuda"))


def test_seeds_trained_at_once_draw_as_each_alone(gpu):
    "Also from a captured step, which repeats what their own generators drew."
    how = dict(epochs=2, batch_size=50, progress=False)
    vae = make_detector("vae", hidden=(8,), latent=2)
    together = fit_at_once(vae, TRAIN, None, (3, 1), device="cuda", **how)
    for seed, one in zip((3, 1), together):
        alone = make_detector("vae", hidden=(8,), latent=2)
        alone.fit(TRAIN, seed=seed, device="cpu", **how)
        scores = [d.anomaly_score(TEST, device="cpu") for d in (one, alone)]
        np.testing.assert_allclose(*scores, rtol=1e-4)
