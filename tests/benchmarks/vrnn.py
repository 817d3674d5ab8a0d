"""Training throughput of the VRNN, beside a straightforward loop over steps that trains one batch per sequence length.

    python tests/benchmarks/vrnn.py --jets 10000
    python tests/benchmarks/vrnn.py --jets 200000 --batch 20000 --device cuda

The straightforward loop is written for this comparison, as such code is usually written: jets sorted into groups of equal length,
PyTorch's own layers called at every step, KL and error of the step added up, Adam, the gradient's norm clipped. It has no padding and no
masks. Both train the published network (hidden 16, latent 2) on the same sequences with the same settings; epochs alternate and the
fastest of each counts, in processor time divided by the threads with --cpu-time, on a machine one is not alone on. On a few sequences
the two are given the same weights and noise and must answer the same.
The floor is the time of the floating-point operations alone: two per weight and constituent forward, four backward, at the rate of a
large matrix product on the same device, measured in the same run.
"""

import argparse
import json
import platform
import resource
import time

import torch
from torch import nn
from tqdm import tqdm

from jet_anomaly.detect.detector import make_detector
from jet_anomaly.train.loop import Trainer, make_accelerator

# ------------------------------------------------------------------------------------------------------------- sequences


def sequences(n, steps, seed):
    "Random steps; lengths as 600 GeV QCD jets have them after Algorithm 1: two thirds full, the rest anything from 3 up."
    g = torch.Generator().manual_seed(seed)
    length = torch.where(
        torch.rand(n, generator=g) < 0.68, steps, torch.randint(3, steps, (n,), generator=g)
    )
    mask = torch.arange(steps) < length[:, None]
    return 0.3 * torch.randn(n, steps, 3, generator=g) * mask[..., None], mask


# ------------------------------------------------------------------------------------------------------------------ loop


class Loop(nn.Module):
    "The VRNN, one layer and one step after the other."

    def __init__(self, x=3, h=16, z=2):
        super().__init__()
        self.h, self.z = h, z

        def layers(*widths):
            return nn.Sequential(
                *(l for a, b in zip(widths, widths[1:]) for l in (nn.Linear(a, b), nn.ReLU()))
            )

        self.phi_x, self.phi_z, self.encoder, self.prior = (
            layers(x, h, h),
            layers(z, h),
            layers(2 * h, h, h),
            layers(h, h),
        )
        self.mean, self.std = nn.Linear(h, z), nn.Sequential(nn.Linear(h, z), nn.Softplus())
        self.prior_mean, self.prior_std = (
            nn.Linear(h, z),
            nn.Sequential(nn.Linear(h, z), nn.Softplus()),
        )
        self.decoder, self.gru = (
            nn.Sequential(layers(2 * h, h, h), nn.Linear(h, x)),
            nn.GRU(2 * h, h, bias=False),
        )

    def forward(self, x, weights, noise=None):
        h, kl, error = x.new_zeros(1, x.shape[1], self.h), 0, 0
        for t in range(len(x)):
            a = self.phi_x(x[t])
            e = self.encoder(torch.cat([a, h[-1]], 1))
            mean, std = self.mean(e), self.std(e)
            p = self.prior(h[-1])
            prior_mean, prior_std = self.prior_mean(p), self.prior_std(p)
            b = self.phi_z(mean + std * (torch.randn_like(std) if noise is None else noise[t]))
            y = self.decoder(torch.cat([b, h[-1]], 1))
            _, h = self.gru(torch.cat([a, b], 1)[None], h)
            kl = kl + weights[t] * 0.5 * torch.sum(
                2 * prior_std.log()
                - 2 * std.log()
                + (std**2 + (mean - prior_mean) ** 2) / prior_std**2
                - 1,
                1,
            )
            error = error + nn.functional.mse_loss(y, x[t])
        return error / len(x) + 0.1 * torch.mean(kl / len(x))

    def copy(self, w):
        "Take the weights of our network."
        join = lambda *names: torch.cat([w[n] for n in names], 1)
        pairs = {
            self.phi_x[0]: ("x1",),
            self.phi_x[2]: ("x2",),
            self.phi_z[0]: ("z",),
            self.encoder[2]: ("encode",),
            self.prior[0]: ("prior1",),
            self.decoder[0][2]: ("decode",),
            self.decoder[1]: ("output",),
        }
        with torch.no_grad():
            for layer, (name,) in pairs.items():
                layer.weight.copy_(w[name])
                layer.bias.copy_(w[f"{name}_bias"])
            for layer, names, bias in (
                (self.encoder[0], ("encode_x", "encode_h"), "encode_first_bias"),
                (self.decoder[0][0], ("decode_z", "decode_h"), "decode_first_bias"),
            ):
                layer.weight.copy_(join(*names))
                layer.bias.copy_(w[bias])
            for name, mean, std in (
                ("posterior", self.mean, self.std[0]),
                ("prior2", self.prior_mean, self.prior_std[0]),
            ):
                for i, layer in enumerate((mean, std)):
                    layer.weight.copy_(w[name].chunk(2)[i])
                    layer.bias.copy_(w[f"{name}_bias"].chunk(2)[i])
            self.gru.weight_ih_l0.copy_(join("gru_x", "gru_z"))
            self.gru.weight_hh_l0.copy_(w["gru_h"])


class LoopTraining:
    "Groups of equal length, shuffled batches of each."

    def __init__(self, x, mask, batch, device):
        self.net, self.batch, self.device = Loop().to(device), batch, device
        length = mask.sum(1)
        self.groups = {int(n): x[length == n, : int(n)].to(device) for n in length.unique()}
        self.weights = {n: g[..., 0].mean(0) for n, g in self.groups.items()}
        self.optimizer = torch.optim.Adam(self.net.parameters(), 1e-5)

    def epoch(self):
        for n, group in self.groups.items():
            order = torch.randperm(len(group), device=self.device)
            for start in range(0, len(group), self.batch):
                self.optimizer.zero_grad()
                self.net(
                    group[order[start : start + self.batch]].transpose(0, 1), self.weights[n]
                ).backward()
                nn.utils.clip_grad_norm_(self.net.parameters(), 10)
                self.optimizer.step()


# ------------------------------------------------------------------------------------------------------------------ ours


class OurTraining:
    "The detector's own training loop, from sequences that are already made."

    def __init__(self, x, mask, batch, device):
        self.detector = make_detector("vrnn")
        self.detector.representation.learn(x, mask)
        self.detector.representation.fitted.fill_(True)
        self.data = tuple(t.to(device) for t in (x, mask, torch.zeros(len(x), 0)))
        self.trainer = Trainer(batch_size=batch, lr=1e-5, clip=10.0, device=device)
        self.accelerator, self.bar, self.n = make_accelerator(device, "no"), tqdm(disable=True), 0
        self.model, self.optimizer = (
            self.accelerator.prepare(self.detector),
            torch.optim.Adam(self.detector.parameters(), 1e-5, fused=True),
        )  # as the loop has it

    def epoch(self):
        self.trainer.train_epoch(
            self.model, self.optimizer, self.accelerator, self.data, self.n, self.bar
        )
        self.n += 1


def check(device):
    "The straightforward loop and our network, with the same weights and noise."
    x, mask = sequences(300, 20, 1)
    x = x[mask.all(1)].to(device)
    net, loop, noise = (
        make_detector("vrnn").network.to(device),
        Loop().to(device),
        torch.randn(*x.shape[:2], 2, device=device),
    )
    loop.copy(net.weights())
    with torch.no_grad():
        kl, error = net.errors(x, noise)
        return abs(
            (error.mean() + 0.1 * kl.mean())
            / loop(x.transpose(0, 1), torch.ones(20), noise.transpose(0, 1))
            - 1
        ).item()


def rate(device):
    "Floating-point operations per second of a large product of single-precision matrices."
    n = 2048 if device == "cpu" else 8192
    a, best = torch.randn(n, n, device=device), float("inf")
    for _ in range(5):
        began = time.perf_counter()
        a @ a
        if device == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - began)
    return 2 * n**3 / best


def main():
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--jets", type=int, default=10_000)
    p.add_argument("--batch", type=int, default=256)
    p.add_argument("--steps", type=int, default=20)
    p.add_argument("--rounds", type=int, default=7, help="epochs of each")
    p.add_argument("--threads", type=int, default=1)
    p.add_argument("--device", default="cpu")
    p.add_argument(
        "--cpu-time", action="store_true", help="processor time over threads instead of the clock"
    )
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--json")
    args = p.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    x, mask = sequences(args.jets, args.steps, args.seed)
    ways = {
        "straightforward loop": LoopTraining(x, mask, args.batch, args.device),
        "ours": OurTraining(x, mask, args.batch, args.device),
    }
    clock, best, memory = (
        (lambda: time.process_time() / args.threads) if args.cpu_time else time.perf_counter,
        {},
        {},
    )
    for _ in range(args.rounds):
        for name, way in ways.items():
            if args.device == "cuda":
                torch.cuda.synchronize()
                torch.cuda.reset_peak_memory_stats()
            began = clock()
            way.epoch()
            if args.device == "cuda":
                torch.cuda.synchronize()
                memory[name] = torch.cuda.max_memory_allocated() / 2**20
            best[name] = min(best.get(name, float("inf")), clock() - began)
            if args.device == "cpu":
                memory[name] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    w = make_detector("vrnn").network.weights()
    per_jet = (
        6
        * sum(v.numel() for k, v in w.items() if not k.endswith("bias"))
        * mask.sum().item()
        / args.jets
    )
    peak = rate(args.device)
    hardware = (
        torch.cuda.get_device_name()
        if args.device == "cuda"
        else f"{platform.processor() or platform.machine()}, {args.threads} thread(s)"
    )
    print(
        f"{args.jets} sequences of up to {args.steps} steps (mean {mask.sum(1).float().mean():.1f}), batch {args.batch}, {hardware}, torch {torch.__version__}, relative difference of the losses {check(args.device):.1e}"
    )
    print(
        f"{per_jet / 1e6:.2f} MFLOP per sequence; matrix product {peak / 1e9:.0f} GFLOP/s; floor {1e6 * per_jet / peak:.1f} µs per sequence"
    )
    print(f"\n{'':<24}{'sequences/s':>12}{'ratio':>8}{'of the floor':>14}{'peak memory':>14}")
    rows = [
        dict(
            way=k,
            rate=args.jets / t,
            ratio=best["straightforward loop"] / t,
            floor=per_jet / peak * args.jets / t,
            memory=memory[k],
        )
        for k, t in best.items()
    ]
    for r in rows:
        print(
            f"{r['way']:<24}{r['rate']:>12,.0f}{r['ratio']:>8.1f}{r['floor']:>13.1%} {r['memory']:>9.0f} MiB"
        )
    if args.json:
        with open(args.json, "w") as f:
            json.dump({"settings": vars(args), "hardware": hardware, "rows": rows}, f, indent=1)


if __name__ == "__main__":
    main()
