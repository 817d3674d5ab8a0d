"""Speed of training the VAE family:  python tests/benchmarks/training.py [--jets 16000] [--device cuda --precision bf16]

One table: the library's own loop, from shuffled rows to the optimiser's step, at the published batch of 100 and at larger ones.
Times are processor seconds of one thread (wall seconds on a GPU), the best of --epochs epochs; each case runs in a process of its own.
The floor is the arithmetic of the matrix products, forward and backward, at the rate of the fastest square matrix product
found between the epochs of the same run. "jet by jet" takes the same steps with one jet at a time.
"""

import argparse
import resource
import time

import numpy as np
from apart import in_process

CASES = {
    "vae": (100, 500, 1000, 2000, 4000),
    "vae, 1024-512-256": (100, 1000, 4000),
    "dense_ae": (100, 4000),
    "disco_vae": (100, 1000, 4000),
    "oe_vae": (100, 4000),
    "lstm_vae": (100, 1000),
}  # detector → batch sizes
OPTIONS = {
    "vae, 1024-512-256": {"hidden": (1024, 512, 256)},
    "disco_vae": {"ramp": "none"},
    "oe_vae": {"ramp": "none"},
}
DEAR = {"lstm_vae": 8, "vae, 1024-512-256": 2}  # so many times fewer jets


def toy_jets(n, width=30):
    "Jets of exponentially falling constituents about an axis."
    from jet_anomaly.jet.jets import Jets

    rng = np.random.default_rng(0)
    pt = np.sort(rng.exponential(1, (n, width)), 1)[:, ::-1]
    pt = 600 * pt / pt.sum(1, keepdims=True)
    eta, phi = rng.normal(0, 0.25, (2, n, width))
    return Jets.from_constituents(
        np.stack([pt * np.cosh(eta), pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)], -1)
    )


def clock_of(device):
    import torch

    if device == "cpu":
        return time.process_time

    def wall():
        torch.cuda.synchronize()
        return time.perf_counter()

    return wall


def product_rate(device, dtype, clock, sizes):
    "Operations per second of the fastest square matrix product."
    import torch

    best = 0
    for n in sizes:
        a, b, c = (torch.randn(n, n, device=device).to(dtype) for _ in range(3))
        for _ in range(10):
            start = clock()
            torch.mm(a, b, out=c)
            best = max(best, 2 * n**3 / (clock() - start))
    return best


def arithmetic(model, batch, step):
    "Operations of the matrix products of a training step, per jet; recurrent layers, which the counter does not see, by their formula."
    from torch import nn
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        model(*batch, step=step)["loss"].backward()
    model.zero_grad()
    unseen = sum(
        6 * model.config.n_constituents * 4 * m.hidden_size * (m.input_size + m.hidden_size)
        for m in model.modules()
        if isinstance(m, nn.LSTM)
    )
    return counter.get_total_flops() / len(batch[0]) + unseen


def jet_by_jet(model, data, step, clock, n=100):
    "Jets per second of steps with a single jet."
    import torch

    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    start = clock()
    for i in range(n):
        loss = model(*(t[i : i + 1] for t in data), step=step)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return n / (clock() - start)


def measured(case, batch, jets, epochs, device, precision, loop, pipe):
    import torch

    from jet_anomaly.detect.detector import make_detector
    from jet_anomaly.train.loop import Step, Trainer

    torch.set_num_threads(1)
    clock, dtype = clock_of(device), {"no": torch.float32, "bf16": torch.bfloat16}[precision]
    sizes = (256, 384, 512, 1024) if device == "cpu" else (2048, 4096, 8192)
    out, plain = dict(rate=0, speed=0, loop=np.nan), Trainer.train_epoch

    def timed(self, model, optimizer, accelerator, data, epoch, bar):
        start = clock()
        row = plain(self, model, optimizer, accelerator, data, epoch, bar)
        out["speed"] = max(out["speed"], len(data[0]) / (clock() - start))
        out["rate"] = max(out["rate"], product_rate(device, dtype, clock, sizes))
        if epoch == self.epochs - 1:
            out["flop"] = arithmetic(model, tuple(t[:1000] for t in data), Step(epoch))
            if loop:
                out["loop"] = jet_by_jet(model, data, Step(epoch), clock)
        return row

    Trainer.train_epoch = timed
    detector = make_detector(case.split(",")[0], **OPTIONS.get(case, {}))
    sample = toy_jets(jets)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    detector.fit(
        sample,
        epochs=epochs,
        batch_size=batch,
        patience=None,
        schedule="none",
        device=device,
        precision=precision,
        progress=False,
    )
    memory = (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        if device == "cpu"
        else torch.cuda.max_memory_allocated() / 1024
    )
    pipe.send(out | dict(memory=memory / 1024))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jets", type=int, default=16_000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--only", default="", help="cases whose name begins with this")
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--precision", default="no", help="no (float32) or bf16; the floor is measured in the same"
    )
    args = parser.parse_args()
    print(
        f"{'':<20}{'batch':>7}{'jets/s':>11}{'× jet by jet':>14}{'MFLOP/jet':>11}{'GFLOP/s':>10}{'of GFLOP/s':>12}{'share':>8}{'MiB more':>10}"
    )
    for case, sizes in CASES.items():
        if not case.startswith(args.only):
            continue
        for batch in sizes:
            r = in_process(
                measured,
                case,
                batch,
                args.jets // DEAR.get(case, 1),
                args.epochs,
                args.device,
                args.precision,
                batch == sizes[0],
            )
            naive = r["loop"] if batch == sizes[0] else naive
            print(
                f"{case:<20}{batch:>7}{r['speed']:>11,.0f}{r['speed'] / naive:>14.0f}{r['flop'] / 1e6:>11.3f}{r['speed'] * r['flop'] / 1e9:>10.1f}"
                f"{r['rate'] / 1e9:>12.1f}{r['speed'] * r['flop'] / r['rate']:>8.0%}{r['memory']:>10.0f}",
                flush=True,
            )
