"""Speed and memory of the published energy-based model:  python tests/benchmarks/ebm.py [--constituents 40] [--size published] [--device cuda]

A training step of ours beside a straightforward one: every batch padded to the widest jet there can be, attention written out,
gradients of the weights made and thrown away at every step of the walk, every walk from noise and so as long as it must be without a buffer.
Times are processor seconds of one thread (wall seconds on a GPU), each case in a process of its own so that the peak memory is its own.
The floor is the arithmetic of a step at the rate of a large single-precision matrix product, counted in forward passes: two per step
of a walk (three where the weights' gradients are made, too), six for the loss of a jet and a walker, six for the terms through the walk;
ours is counted without padding.
`--bf16` and `--compile` are for a GPU; "ours, float32 eager" is then the case to compare with.
"""

import argparse
import resource
import time

from apart import in_process, peak_rate

CASES = {  # name → (straightforward?, options, settings)
    "straightforward, walks from noise": (True, {}, {}),
    "straightforward, walks as short as ours": (True, {"short": True}, {}),
    "ours": (False, {}, {}),
    "ours, without the terms through the walk": (False, {"kl": 0.0, "repel": 0.0}, {}),
    "ours, 4 groups by length": (False, {"groups": 4}, {}),
}


def toy(n, width):
    "Features of jets with multiplicities like those of QCD jets of 600 GeV, and their masks."
    import torch

    g = torch.Generator().manual_seed(0)
    count = (46 * (0.45 * torch.randn(n, generator=g)).exp()).round().clamp(2, width)
    mask = torch.arange(width) < count[:, None]
    return torch.randn(n, width, 3, generator=g) * mask[..., None], mask


def written_out(net):
    "The network with attention in plain arithmetic."
    import math

    def attention(q, k, v, attn_mask=None):
        a = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        return (a if attn_mask is None else a.masked_fill(~attn_mask, -math.inf)).softmax(-1) @ v

    import jet_anomaly.train.sets as module

    module.scaled_dot_product_attention = attention
    return lambda x, mask: -net(x, mask)[:, 0]


def straightforward(detector, x, mask, steps):
    "One training step: noise, a long walk, contrastive divergence."
    import torch

    c, energy = detector.config, written_out(detector.net)
    y = torch.randn_like(x) * mask[..., None]
    for _ in range(steps):
        y = (y + c.noise * torch.randn_like(y) * mask[..., None]).detach().requires_grad_()
        energy(y, mask).sum().backward()
        y = y - c.step * y.grad
    detector.zero_grad()
    e, fake = energy(x, mask), energy(y.detach(), mask)
    (e - fake + c.regularisation * (e**2 + fake**2)).mean().backward()


def measured(case, args, pipe):
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from jet_anomaly.detect.detector import make_detector

    torch.set_num_threads(1)
    naive, options, _ = CASES[case]
    options = dict(options)
    steps = args.steps if options.pop("short", False) else args.from_noise
    detector = (
        make_detector(
            "ebm_published",
            size=args.size,
            n_constituents=args.constituents,
            steps=args.steps,
            **options,
        )
        .to(args.device)
        .train()
    )
    x, mask = (t.to(args.device) for t in toy(args.batch, args.constituents))
    if args.compile and not naive:
        detector.compile()

    def one():
        detector.zero_grad()
        with torch.autocast(
            torch.device(args.device).type, torch.bfloat16, enabled=args.bf16 and not naive
        ):
            if naive:
                straightforward(detector, x, mask, steps)
            else:
                loss = detector.terms(x, mask)["loss"].mean()
        if not naive:
            loss.backward()
        if args.device != "cpu":
            torch.cuda.synchronize()

    one()
    clock = time.process_time if args.device == "cpu" else time.perf_counter
    start = clock()
    for _ in range(args.repeat):
        one()
    took = (clock() - start) / args.repeat / args.batch
    peak = (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if args.device == "cpu"
        else torch.cuda.max_memory_allocated() / 2**20
    )
    real = float(mask.float().mean())
    passes = (
        3 * steps + 6
        if naive
        else 2 * args.steps + 6 + 6 * bool(detector.config.kl or detector.config.repel)
    )
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        written_out(detector.net)(x, mask)
    pipe.send(
        dict(
            took=took,
            flop=passes * counter.get_total_flops() / args.batch * (1 if naive else real),
            peak=peak,
            rate=peak_rate(args.device),
            real=real,
        )
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", default="small")
    parser.add_argument("--constituents", type=int, default=40)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument(
        "--steps", type=int, default=5, help="of a walk that goes on from the buffer"
    )
    parser.add_argument("--from-noise", type=int, default=24, help="of a walk from noise")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    args = parser.parse_args()
    print(
        f"{'one training step':<44}{'jets/s':>9}{'ratio':>8}{'MFLOP/jet':>11}{'of floor %':>12}{'memory MB':>11}"
    )
    first = None
    for case in (c for c in CASES if args.only in ([c] if args.only in CASES else c)):
        r = in_process(measured, case, args)
        first = first or r["took"]
        print(
            f"{case:<44}{1 / r['took']:>9.0f}{first / r['took']:>8.1f}{r['flop'] / 1e6:>11.1f}{100 * r['flop'] / r['rate'] / r['took']:>12.1f}{r['peak']:>11.0f}",
            flush=True,
        )
    print(
        f"{r['real']:.0%} of the {args.constituents} slots are constituents; network: {args.size}; {args.batch} jets per step; {r['rate'] / 1e9:.0f} GFLOP/s in a matrix product"
    )
