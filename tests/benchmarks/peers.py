"""Training beside a peer on the same inputs: our `vae` and `dense_ae`, a bare loop over a DataLoader, and pyod's VAE and AutoEncoder.

    python tests/benchmarks/peers.py [--rows 8000] [--repeat 3] [--device cuda]    (needs pyod: pip install pyod)

Everything in one process on one thread, in float32, taken in turns; processor time, on a GPU wall time. Networks, inputs, batch and optimiser are the
same: 256, 128, 64, ten latent numbers, no dropout, no normalisation, Adam. A training of five epochs less one of one
epoch is four epochs without what is done once. The floor is the arithmetic of the matrix products at the rate of a
large one.
"""

import argparse
import warnings

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset
from training import clock_of, product_rate

from jet_anomaly.data.sample import packaged_jets
from jet_anomaly.detect.detector import make_detector
from jet_anomaly.train.loop import Step, Trainer

HIDDEN, LATENT = (256, 128, 64), 10
ALIKE = dict(preprocessing=False, dropout_rate=0.0, batch_norm=False, lr=1e-3, verbose=0)


def ours(name, x, device):
    def fit(epochs, batch):
        settings = dict(device=device, precision="no", progress=False)
        Trainer(epochs=epochs, batch_size=batch, **settings).fit(fitted(name), (x,))

    return fit


def fitted(name):
    detector = make_detector(name)
    return detector.train()


def bare(name, x, device):
    def fit(epochs, batch):
        detector = fitted(name).to(device)
        optimizer = torch.optim.Adam(detector.parameters(), lr=1e-3)
        loader = DataLoader(TensorDataset(x), batch, shuffle=True)
        for _ in range(epochs):
            for (rows,) in loader:
                loss = detector(rows.to(device), step=Step())["loss"]
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    return fit


def peer(name, x, device):
    from pyod.models.auto_encoder import AutoEncoder
    from pyod.models.vae import VAE

    same = ALIKE | dict(optimizer_params={"weight_decay": 0.0}, device=device)
    variational = dict(
        encoder_neuron_list=list(HIDDEN),
        decoder_neuron_list=list(HIDDEN[::-1]),
        latent_dim=LATENT,
        beta=0.1,
    )

    def fit(epochs, batch):
        settings = same | dict(epoch_num=epochs, batch_size=batch)
        if name == "vae":
            model = VAE(**settings, **variational)
        else:
            model = AutoEncoder(**settings, hidden_neuron_list=[*HIDDEN, LATENT])
        model.fit(x.numpy())

    return fit


def seconds_per_epoch(ways, batch, repeat, clock, epochs=(1, 5)):
    "Way → seconds of an epoch: the fastest long training less the fastest short one."
    best = {(way, n): np.inf for way in ways for n in epochs}
    for _ in range(repeat):
        for way, n in best:
            begin = clock()
            ways[way](n, batch)
            best[way, n] = min(best[way, n], clock() - begin)
    few, many = epochs
    return {way: (best[way, many] - best[way, few]) / (many - few) for way in ways}


def floor(detector, rows, device, clock):
    "Seconds of the arithmetic of an epoch."
    weights = sum(p.numel() for p in detector.parameters() if p.ndim == 2)
    sizes = (384,) if device == "cpu" else (4096, 8192)
    return 6 * rows * weights / product_rate(device, torch.float32, clock, sizes)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=8000)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    clock, jets = clock_of(args.device), packaged_jets("qcd", 2000)
    detector = make_detector("vae")
    detector.representation.fit(jets)
    (x,) = detector.columns(jets)
    x = x.repeat(-(-args.rows // len(x)), 1)[: args.rows]
    print(
        f"{'rows/s':>22}{'ours':>10}{'bare loop':>11}{'pyod':>9}{'ours/bare':>11}{'ours/pyod':>11}{'of floor':>10}"
    )
    for name in "vae", "dense_ae":
        ways = {w.__name__: w(name, x, args.device) for w in (ours, bare, peer)}
        for batch in 100, 1000:
            best = seconds_per_epoch(ways, batch, args.repeat, clock)
            rate = {way: args.rows / best[way] for way in ways}
            share = floor(fitted(name), args.rows, args.device, clock) / best["ours"]
            print(
                f"{name:>12} batch {batch:<4}{rate['ours']:10,.0f}{rate['bare']:11,.0f}{rate['peer']:9,.0f}"
                f"{rate['ours'] / rate['bare']:11.2f}{rate['ours'] / rate['peer']:11.2f}{share:10.0%}",
                flush=True,
            )
