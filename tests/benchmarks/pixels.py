"""Speed and memory of the image detectors:  python tests/benchmarks/pixels.py [--jets 4000] [--only image_ae]

Times are processor seconds of one thread (wall seconds on a GPU), each case in a process of its own so that the peak memory is its own.
The floor is the arithmetic of the network, forward and backward, at the rate of a large single-precision matrix product.
"jet by jet" takes the same steps with one jet at a time; "contiguous" is ours without the channels-last layout.
`--jets 250000 --only "patches, batch 1024"` shows that memory grows only by the constituents of the jets.
"""

import argparse
import resource
import time

import numpy as np
from apart import in_process, peak_rate

CASES = {  # name → detector, options, batch size
    "image_ae patches, batch 64": ("image_ae", {}, 64),
    "image_ae patches, batch 1024": ("image_ae", {}, 1024),
    "image_ae patches, batch 1024, stored": ("image_ae", {"stored": True}, 1024),
    "image_ae published, batch 64": ("image_ae", {"network": "published"}, 64),
    "channel_ae pt, batch 50": ("channel_ae", {}, 50),
    "channel_vae pt, batch 50": ("channel_vae", {}, 50),
    "channel_ae d0 + dz, batch 50": ("channel_ae", {"channels": ("d0", "dz")}, 50),
    "channel_ae all eleven, batch 50": (
        "channel_ae",
        {"channels": ("pt", "d0", "dz", "pdgid")},
        50,
    ),
}
SLOW = {"image_ae published, batch 64": 8}  # so many times fewer jets


def toy_jets(n, width=60):
    "Jets of exponentially falling constituents about an axis, with tracks."
    from jet_anomaly.jet.jets import Jets

    rng = np.random.default_rng(0)
    parts = []
    for start in range(0, n, 20_000):
        m = min(20_000, n - start)
        pt = np.sort(rng.exponential(1, (m, width)).astype(np.float32), 1)[:, ::-1]
        pt = 600 * pt / pt.sum(1, keepdims=True)
        eta, phi = rng.normal(0, 0.25, (2, m, width)).astype(np.float32)
        parts.append(
            np.stack([pt * np.cosh(eta), pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta)], -1)
        )
    p4 = np.concatenate(parts)
    ids = rng.choice(np.array([211, -211, 22, 130], np.int32), p4.shape[:2])
    track = np.abs(ids) == 211
    features = (
        {"pdgid": ids}
        | {k: (rng.normal(0, 0.05, p4.shape[:2]) * track).astype(np.float32) for k in ("d0", "dz")}
        | {k: np.where(track, np.float32(0.05), 0) for k in ("d0_err", "dz_err")}
    )
    return Jets(p4, np.ones(p4.shape[:2], bool), features)


def flop(detector, jets):
    "Floating-point operations per jet, forward and backward."
    from torch.utils.flop_counter import FlopCounterMode

    x = detector.inputs(*detector.columns(jets[:2]))
    detector.train()
    with FlopCounterMode(display=False) as counter:
        detector.terms(*x)["loss"].sum().backward()
    detector.zero_grad()
    return counter.get_total_flops() / 2


def one_by_one(detector, jets, n):
    "Processor seconds per jet of steps with a single jet."
    import torch

    optimizer = torch.optim.Adam(detector.parameters())
    columns = detector.columns(jets[:n])
    detector.train()
    start = time.process_time()
    for i in range(n):
        loss = detector(*(c[i : i + 1] for c in columns))["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return (time.process_time() - start) / n


def measured(case, n, device, compiled, contiguous, pipe):
    import torch

    from jet_anomaly.detect.detector import make_detector

    torch.set_num_threads(1)
    name, options, batch = CASES[case]
    clock = time.process_time if device == "cpu" else time.perf_counter
    detector, jets = make_detector(name, **options), toy_jets(n)
    settings = dict(batch_size=batch, device=device, progress=False, compile=compiled)
    detector.fit(jets[: 2 * batch], epochs=1, **settings)  # the first steps allocate, and compile
    if contiguous:
        detector.to(memory_format=torch.contiguous_format)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = clock()
    detector.fit(jets, epochs=1, warm_start=contiguous, **settings)
    train = (clock() - start) / n
    start = clock()
    detector.scores(jets[:2000], device=device)
    score = (clock() - start) / min(n, 2000)
    peak = (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if device == "cpu"
        else torch.cuda.max_memory_allocated() / 1024
    )
    detector.to("cpu")
    loop = one_by_one(detector, jets, 20) if device == "cpu" and not contiguous else np.nan
    pipe.send(
        dict(
            train=train,
            score=score,
            loop=loop,
            flop=flop(detector, jets),
            peak=peak / 1024,
            grown=(peak - before) / 1024,
            rate=peak_rate(),
        )
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jets", type=int, default=4000)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    print(
        f"{'training, one epoch':<40}{'train':>8}{'score':>8}{'loop':>8}{'ratio':>7}{'MFLOP':>8}{'of floor':>9}{'memory':>9}{'grown':>8}"
    )
    print(
        f"{'':<40}{'jets/s':>8}{'jets/s':>8}{'jets/s':>8}{'':>7}{'/jet':>8}{'%':>9}{'MB':>9}{'MB':>8}"
    )
    for case in (c for c in CASES if args.only in c):
        for contiguous in (False, True) if args.device == "cpu" else (False,):
            r = in_process(
                measured,
                case,
                args.jets // SLOW.get(case, 1),
                args.device,
                args.compile,
                contiguous,
            )
            print(
                f"{case + ', contiguous' * contiguous:<40}{1 / r['train']:>8.0f}{1 / r['score']:>8.0f}{1 / r['loop']:>8.0f}{r['loop'] / r['train']:>7.1f}"
                f"{r['flop'] / 1e6:>8.1f}{100 * r['flop'] / r['rate'] / r['train'] if args.device == 'cpu' else np.nan:>9.1f}{r['peak']:>9.0f}{r['grown']:>8.0f}",
                flush=True,
            )
