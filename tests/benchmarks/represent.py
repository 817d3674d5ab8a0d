"""Jets per second of every representation, beside a plain Python loop over jets and constituents that does the same work.

    python tests/benchmarks/represent.py --jets 20000 --json represent.json
    JET_ANOMALY_NATIVE=0 python tests/benchmarks/represent.py   # tensors only, without the compiled kernels

The loops are written for this comparison, in the structure in which such code is usually published: one jet after the other,
one object or one list entry per constituent, math functions on single numbers. Algorithm 1 has a second one, with all the detours of the
published program's structure: see `Stored`. On the jets that both have done the answers are
compared, so that no ratio is bought with another answer. The batched code makes its answers batch by batch and drops them, as in
training on the fly; keeping a gigabyte of images costs the operating system more than making them. CPU figures are for one thread, in processor time, best of the repeats.
The floor is what the hardware cannot go below: reading the input and writing the output once, and the transcendental functions
(counted per real constituent), at the rates measured for this machine by plain copies and by torch.log1p on data in cache.
"""

import argparse
import json
import math
import os
import platform
import resource
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np
import torch

from jet_anomaly.jet.align import algorithm_1, centre_and_rotate
from jet_anomaly.jet.kinematics import from_pt_eta_phi
from jet_anomaly.jet.substructure import energy_correlation, girth, n_subjettiness
from jet_anomaly.jet.tree import soft_drop
from jet_anomaly.represent.images import ChannelImages, jet_images
from jet_anomaly.represent.scale import ScaledFourVectors
from jet_anomaly.represent.sequences import log_pt_eta_phi

# ---------------------------------------------------------------------------------------------------------------------- jets


def toy_jets(n, width, seed):
    "Massless constituents around one or two directions, as many as QCD jets of 600 GeV have."
    g = np.random.default_rng(seed)
    mask = np.arange(width) < np.clip(g.normal(46, 18, (n, 1)), 3, width).astype(int)
    axis = 0.25 * g.normal(size=(n, 2, 2)) * (g.random((n, 1, 1)) < 0.5)
    xy = np.take_along_axis(axis, g.integers(2, size=(n, width))[..., None], 1) + g.normal(
        0, 0.12, (n, width, 2)
    )
    p4 = from_pt_eta_phi(
        600 * g.dirichlet(np.full(width, 0.35), n),
        xy[..., 0] + g.normal(0, 0.8, (n, 1)),
        xy[..., 1] + g.uniform(-3.1, 3.1, (n, 1)),
    )
    order = np.argsort(-np.where(mask, np.hypot(p4[..., 1], p4[..., 2]), -1), 1)
    mask = np.take_along_axis(mask, order, 1)
    return (np.take_along_axis(p4, order[..., None], 1) * mask[..., None]).astype(np.float32), mask


def make_jets(n, width, seed, toy):
    if toy:
        return toy_jets(n, width, seed), "toy"
    from jet_anomaly.data.simulate import simulate

    jets = simulate("qcd", min(n, 2000), seed=seed, preset="fast", n_constituents=width)
    times = -(-n // len(jets))
    return (
        np.tile(jets.p4, (times, 1, 1))[:n],
        np.tile(jets.mask, (times, 1))[:n],
    ), f"qcd, fast, {len(jets)} jets repeated"


# --------------------------------------------------------------------------------------------------------------------- loops


class Particle:
    "Energy and momentum of one particle."

    __slots__ = ("e", "x", "y", "z")

    def __init__(self, e, x, y, z):
        self.e, self.x, self.y, self.z = e, x, y, z

    def pt(self):
        return math.hypot(self.x, self.y)

    def phi(self):
        return math.atan2(self.y, self.x)

    def eta(self):
        return math.asinh(self.z / self.pt()) if self.pt() > 0 else 0.0

    def rapidity(self):
        return math.atanh(self.z / self.e) if self.e > 0 else 0.0

    def __add__(self, o):
        return Particle(self.e + o.e, self.x + o.x, self.y + o.y, self.z + o.z)

    def scale(self, f):
        return Particle(self.e * f, self.x * f, self.y * f, self.z * f)

    def rotate_z(self, a):
        c, s = math.cos(a), math.sin(a)
        return Particle(self.e, c * self.x - s * self.y, s * self.x + c * self.y, self.z)

    def rotate_x(self, a):
        c, s = math.cos(a), math.sin(a)
        return Particle(self.e, self.x, c * self.y - s * self.z, s * self.y + c * self.z)

    def boost_z(self, y):
        c, s = math.cosh(y), math.sinh(y)
        return Particle(c * self.e + s * self.z, self.x, self.y, s * self.e + c * self.z)

    def boost_x(self, y):
        c, s = math.cosh(y), math.sinh(y)
        return Particle(c * self.e + s * self.x, s * self.e + c * self.x, self.y, self.z)


def particles(p4, mask):
    return [Particle(*map(float, v)) for v, m in zip(p4, mask) if m]


def total(jet):
    out = Particle(0.0, 0.0, 0.0, 0.0)
    for p in jet:
        out = out + p
    return out


def loop_centre(p4, mask):
    "VAE-Jet, over every row as the published loop does, padding included."
    jet = [Particle(*map(float, v)) for v in p4]
    axis = total(jet)
    jet = [p.rotate_z(-axis.phi()).boost_z(-axis.rapidity()) for p in jet]
    a = b = 0.0
    for p in jet:
        if p.e > 0:
            r = max(math.hypot(p.eta(), p.phi()), 1e-6)
            a, b = a + p.e * p.phi() / r, b + p.e * p.eta() / r
    turn = math.atan2(b, a)
    jet = [p.rotate_x(-turn) for p in jet]
    return [[p.e, p.x, p.y, p.z] for p in jet]


def loop_align(jet, m0=0.25, e0=1.0):
    axis = total(jet)
    jet = [p.rotate_z(-axis.phi()).boost_z(-axis.rapidity()) for p in jet]
    axis = total(jet)
    m = math.sqrt(max(axis.e**2 - axis.x**2 - axis.y**2 - axis.z**2, 0))
    jet = [p.scale(m0 / m) for p in jet]
    axis = total(jet)
    jet = [p.boost_x(math.acosh(e0 / m0) - math.atanh(axis.x / axis.e)) for p in jet]
    hardest = max(jet, key=Particle.pt)
    turn = math.atan2(hardest.z, hardest.y)
    return [p.rotate_x(-turn) for p in jet]


def loop_settle(jet):
    while True:
        jet = loop_align(jet)
        keep = [p for p in jet if math.hypot(p.eta(), p.phi()) < 1]
        if len(keep) < 3:
            return []
        if len(keep) == len(jet):
            return jet
        jet = keep


def loop_algorithm_1(p4, mask, n=20):
    jet = [
        Particle(math.sqrt(p.x**2 + p.y**2 + p.z**2), p.x, p.y, p.z) for p in particles(p4, mask)
    ]
    jet = loop_settle(jet)
    if len(jet) > n:
        jet = loop_settle(sorted(jet, key=lambda p: -p.pt() * math.hypot(p.eta(), p.phi()))[:n])
    if not jet:
        return np.zeros((n, 3))
    sequence = [max(jet, key=Particle.pt)]
    left = [p for p in jet if p is not sequence[0]]
    while left:
        last = sequence[-1]
        sequence.append(
            max(left, key=lambda p: p.pt() * math.hypot(p.eta() - last.eta(), p.phi() - last.phi()))
        )
        left = [p for p in left if p is not sequence[-1]]
    sign = -1 if sequence[1].eta() < 0 else 1
    rows = [[p.pt() / math.sqrt(1 - 0.25**2), sign * p.eta(), p.phi()] for p in sequence]
    return np.array(rows + [[0.0] * 3] * (n - len(rows)))


class Stored:
    """Momentum and direction of one particle, as files have them; each step goes to four-vectors and back.

    The structure of the published program: the parameters of a boost are worked out again for every constituent,
    every constituent is a new object after every step, and the jet is summed up again from them."""

    __slots__ = ("pt", "eta", "phi", "m")

    def __init__(self, pt, eta, phi, m):
        self.pt, self.eta, self.phi, self.m = pt, eta, phi, m

    def vector(self):
        x, y, z = (
            self.pt * math.cos(self.phi),
            self.pt * math.sin(self.phi),
            self.pt * math.sinh(self.eta),
        )
        return Particle(math.sqrt(x * x + y * y + z * z + self.m**2), x, y, z)

    @classmethod
    def of(cls, v):
        return cls(v.pt(), v.eta(), v.phi(), math.sqrt(max(v.e**2 - v.x**2 - v.y**2 - v.z**2, 0)))

    def boosted(self, bx, by, bz):
        v, b2 = self.vector(), bx * bx + by * by + bz * bz
        gamma, bp = 1 / math.sqrt(1 - b2), bx * v.x + by * v.y + bz * v.z
        k = (gamma - 1) / b2 * bp + gamma * v.e if b2 > 0 else 0.0
        return Stored.massless(v.x + k * bx, v.y + k * by, v.z + k * bz)

    @classmethod
    def massless(cls, x, y, z):
        return cls.of(Particle(math.sqrt(x * x + y * y + z * z), x, y, z))

    def turned_z(self, a):
        return Stored.of(self.vector().rotate_z(a))

    def turned_x(self, a):
        return Stored.of(self.vector().rotate_x(a))

    def scaled(self, f):
        return Stored.of(self.vector().scale(f))


def stored_total(jet):
    out = Particle(0.0, 0.0, 0.0, 0.0)
    for p in jet:
        out = out + p.vector()
    return out


def stored_align(jet, m0=0.25, e0=1.0):
    axis = stored_total(jet)
    jet = [p.turned_z(-axis.phi()) for p in jet]
    axis = stored_total(jet)
    jet = [p.boosted(0.0, 0.0, -axis.z / axis.e) for p in jet]
    axis = stored_total(jet)
    m = math.sqrt(max(axis.e**2 - axis.x**2 - axis.y**2 - axis.z**2, 0))
    jet = [p.scaled(m0 / m) for p in jet]
    axis = stored_total(jet)
    y = math.acosh(e0 / m0) - math.atanh(axis.x / axis.e)
    jet = [p.boosted(math.tanh(y), 0.0, 0.0) for p in jet]
    hardest = max(jet, key=lambda p: p.pt).vector()
    return [p.turned_x(-math.atan2(hardest.z, hardest.y)) for p in jet]


def stored_settle(jet):
    while True:
        jet = stored_align(jet)
        keep = [p for p in jet if math.hypot(p.eta, p.phi) < 1]
        if len(keep) < 3:
            return []
        if len(keep) == len(jet):
            return jet
        jet = keep


def published_algorithm_1(p4, mask, n=20):
    "Algorithm 1 in the structure of the published program, without its faults: it must give the right answer."
    jet = [Stored.massless(x, y, z) for (e, x, y, z), m in zip(p4.tolist(), mask) if m]
    jet = stored_settle(jet)
    if len(jet) > n:
        jet = stored_settle(sorted(jet, key=lambda p: -p.pt * math.hypot(p.eta, p.phi))[:n])
    if not jet:
        return np.zeros((n, 3))
    sequence = [max(jet, key=lambda p: p.pt)]
    left = [p for p in jet if p is not sequence[0]]
    while left:
        last = sequence[-1]
        sequence.append(
            max(left, key=lambda p: p.pt * math.hypot(p.eta - last.eta, p.phi - last.phi))
        )
        left = [p for p in left if p is not sequence[-1]]
    sign = -1 if sequence[1].eta < 0 else 1
    return np.array(
        [[p.pt / stored_total(sequence).pt(), sign * p.eta, p.phi] for p in sequence]
        + [[0.0] * 3] * (n - len(sequence))
    )


def relative(jet):
    axis = total(jet)
    y, f = axis.rapidity(), axis.phi()
    return [(p.pt(), p.eta() - y, (p.phi() - f + math.pi) % (2 * math.pi) - math.pi) for p in jet]


def loop_image(p4, mask, pixels=40, extent=1.0):
    rows = relative(particles(p4, mask))
    w = sum(r[0] for r in rows)
    mx, my = sum(r[0] * r[1] for r in rows) / w, sum(r[0] * r[2] for r in rows) / w
    rows = [(p, x - mx, y - my) for p, x, y in rows]
    xx, yy, xy = (
        sum(p * f(x, y) for p, x, y in rows)
        for f in (lambda x, y: x * x, lambda x, y: y * y, lambda x, y: x * y)
    )
    turn = math.pi / 2 - math.atan2(2 * xy, xx - yy) / 2
    c, s = math.cos(turn), math.sin(turn)
    rows = [(p, c * x - s * y, s * x + c * y) for p, x, y in rows]
    hot = max(rows)
    sx, sy = (-1 if hot[1] < 0 else 1), (-1 if hot[2] < 0 else 1)
    image = np.zeros((pixels, pixels))
    for p, x, y in rows:
        i, j = (math.floor((v + extent) * pixels / (2 * extent)) for v in (sx * x, sy * y))
        if 0 <= i < pixels and 0 <= j < pixels:
            image[i, j] += p
    return image / image.sum()


def loop_channel(p4, mask, pixels=32, extent=0.8):
    jet = particles(p4, mask)
    image, scale = np.zeros((pixels, pixels)), total(jet).pt()
    for p, x, y in relative(jet):
        i, j = (math.floor((v + extent) * pixels / (2 * extent)) for v in (x, y))
        if 0 <= i < pixels and 0 <= j < pixels:
            image[i, j] += p / scale
    return image


def loop_log(p4, mask, n=40):
    "Energy-based features: one jet after the other, its constituents at once in NumPy, as published."
    e, x, y, z = p4.sum(0, dtype=np.float64)
    v, m = p4[:n], mask[:n]
    out = np.zeros((n, 3))
    p = np.hypot(v[m, 1], v[m, 2])
    out[: m.sum(), 0], out[: m.sum(), 1] = np.log(p), np.arcsinh(v[m, 3] / p) - np.arctanh(z / e)
    out[: m.sum(), 2] = (np.arctan2(v[m, 2], v[m, 1]) - np.arctan2(y, x) + np.pi) % (
        2 * np.pi
    ) - np.pi
    return out


def loop_four_vectors(p4, mask, n=20):
    return np.array(loop_centre(p4, mask))[:n].ravel()


def loop_girth(p4, mask):
    rows = relative(particles(p4, mask))
    return sum(p * math.hypot(x, y) for p, x, y in rows) / sum(r[0] for r in rows)


def distance2(a, b):
    d = abs(a[2] - b[2])
    d = min(d, 2 * math.pi - d)
    return (a[1] - b[1]) ** 2 + d * d


def loop_tau(p4, mask, n=3):
    "Axes by kT clustering with winner-takes-all recombination, all pairs at every step; then tau_n."
    rows = [(p.pt(), p.rapidity(), p.phi()) for p in particles(p4, mask)]
    clusters = list(rows)
    while len(clusters) > n:
        _, i, j = min(
            (min(a[0], b[0]) ** 2 * distance2(a, b), i, j)
            for i, a in enumerate(clusters)
            for j, b in enumerate(clusters[:i])
        )
        a, b = clusters[i], clusters[j]
        clusters = [c for k, c in enumerate(clusters) if k not in (i, j)] + [
            (a[0] + b[0], *max(a, b)[1:])
        ]
    return (
        sum(r[0] * math.sqrt(min(distance2(r, c) for c in clusters)) for r in rows)
        / sum(r[0] for r in rows)
        if len(rows) > n
        else 0.0
    )


def loop_soft_drop(p4, mask):
    "Mass after soft drop: Cambridge/Aachen clustering, all pairs at every step, each cluster carrying what it is groomed to."
    clusters = [(p, p) for p in particles(p4, mask)]
    while len(clusters) > 1:
        at = [(0.0, p.rapidity(), p.phi()) for p, _ in clusters]
        _, i, j = min(
            (distance2(a, b), i, j) for i, a in enumerate(at) for j, b in enumerate(at[:i])
        )
        (a, ga), (b, gb) = clusters[i], clusters[j]
        harder, softer = max(a.pt(), b.pt()), min(a.pt(), b.pt())
        groomed = a + b if softer / (harder + softer) > 0.1 else (ga if a.pt() >= b.pt() else gb)
        clusters = [c for k, c in enumerate(clusters) if k not in (i, j)] + [(a + b, groomed)]
    g = clusters[0][1]
    return math.sqrt(max(g.e**2 - g.x**2 - g.y**2 - g.z**2, 0))


def loop_e3(p4, mask):
    rows = [(p.pt(), p.rapidity(), p.phi()) for p in particles(p4, mask)]
    n, s = len(rows), sum(r[0] for r in rows)
    d = [[math.sqrt(distance2(a, b)) for b in rows] for a in rows]
    return (
        sum(
            rows[i][0] * rows[j][0] * rows[k][0] * d[i][j] * d[j][k] * d[i][k]
            for i in range(n)
            for j in range(i)
            for k in range(j)
        )
        / s**3
    )


# ----------------------------------------------------------------------------------------------------------------- the table


def soft_drop_mass(p4, mask):
    e, x, y, z = soft_drop(p4, mask)[0].unbind(-1)
    return (e**2 - x**2 - y**2 - z**2).clamp(min=0).sqrt()


channel = ChannelImages(("pt",))
# name: batched, loop, share of the loop's jets, output numbers per jet, transcendental functions per constituent, asked-for ratio, tolerance
ROWS = {
    "centre_and_rotate, padding too": (centre_and_rotate, loop_centre, 1, None, 3, 200, 2e-2),
    "ScaledFourVectors": (ScaledFourVectors().unscaled, loop_four_vectors, 1, 80, 3, None, 2e-2),
    "algorithm_1": (lambda p, m: algorithm_1(p, m)[0], loop_algorithm_1, 1, 60, 3, None, 2e-3),
    "algorithm_1, published loop": (
        lambda p, m: algorithm_1(p, m)[0],
        published_algorithm_1,
        1,
        60,
        3,
        500,
        2e-3,
    ),
    "jet_images 40x40": (jet_images, loop_image, 1, 1600, 3, 50, 1e-3),
    "ChannelImages pt 32x32": (channel.unscaled, loop_channel, 1, 1024, 3, None, 1e-3),
    "log_pt_eta_phi (NumPy loop)": (
        lambda p, m: log_pt_eta_phi(p, m)[0],
        loop_log,
        1,
        120,
        4,
        10,
        1e-3,
    ),
    "girth": (girth, loop_girth, 1, 1, 4, None, 1e-3),
    "tau3, WTA kT axes": (
        lambda p, m: n_subjettiness(p, m, (3,))[:, 0],
        loop_tau,
        0.1,
        1,
        4,
        None,
        1e-3,
    ),
    "soft-drop mass": (soft_drop_mass, loop_soft_drop, 0.1, 1, 4, None, 0.5),
    "e3": (lambda p, m: energy_correlation(p, m, 3), loop_e3, 0.1, 1, 3, None, 1e-4),
}


def best(f, repeats, clock=time.process_time):
    times = []
    for _ in range(repeats):
        start = clock()
        f()
        times.append(clock() - start)
    return min(times)


def peak_memory(f):
    "Growth of the resident memory while `f` runs, in a forked child; MB."
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        f()
        os.write(write, str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as answer:
        return int(answer.read() or 0) / 1024


def machine_rates(device):
    "Bytes per second of a copy out of cache, transcendental functions per second in cache."
    big, small = (
        torch.zeros(2**26, device=device),
        torch.rand(2**16 if device == "cpu" else 2**24, device=device),
    )

    def run(f, n):
        return best(lambda: ([f() for _ in range(n)], wait(device)), 5, clock_of(device)) / n

    target = torch.ones_like(big)  # memory that is there: asking for new pages is another matter
    return 2 * big.nbytes / run(lambda: target.copy_(big), 1), len(small) / run(
        lambda: torch.log1p(small), 20
    )


def wait(device):
    if device != "cpu":
        torch.cuda.synchronize()


def clock_of(device):
    return time.process_time if device == "cpu" else time.perf_counter


def agree(fast, slow, tolerance):
    "Share of the jets whose numbers agree; a pixel edge or a tie may go either way in single precision."
    fast, slow = (np.asarray(a, np.float64).reshape(len(slow), -1) for a in (fast, slow))
    return float((np.abs(fast - slow).max(1) < tolerance).mean())


def measure(name, p4, mask, args, device, rates):
    batched, loop, part, n_out, functions, asked, tolerance = ROWS[name]
    p, m = (torch.from_numpy(a).to(device) for a in (p4, mask))
    n = max(1, int(args.loop_jets * part))
    slow = [loop(p4[i], mask[i]) for i in range(n)]
    same = agree(batched(p[:n], m[:n]).cpu().numpy(), slow, tolerance)
    loop_time = best(lambda: [loop(p4[i], mask[i]) for i in range(n)], args.repeats) / n
    size = args.batch if device == "cpu" else 100 * args.batch

    def run():
        for a, b in zip(p.split(size), m.split(size)):
            batched(a, b)
        wait(device)

    run()
    seconds = best(run, args.repeats, clock_of(device)) / len(p4)
    moved = 4 * (p4.shape[1] * 4 + (n_out or p4.shape[1] * 4))
    floor = moved / rates[0] + functions * mask.sum() / len(mask) / rates[1]
    if device == "cpu":
        memory = peak_memory(run)
    else:
        torch.cuda.reset_peak_memory_stats()
        start = torch.cuda.memory_allocated()
        run()
        memory = (torch.cuda.max_memory_allocated() - start) / 2**20
    return dict(
        name=name,
        device=device,
        jets_per_s=1 / seconds,
        loop_jets_per_s=1 / loop_time,
        ratio=loop_time / seconds,
        asked=asked,
        jets_agree=same,
        peak_MB=memory,
        bytes_per_jet=moved,
        functions_per_jet=float(functions * mask.sum() / len(mask)),
        floor_jets_per_s=1 / floor,
        share_of_floor=floor / seconds,
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jets", type=int, default=20_000, help="jets for the batched code")
    parser.add_argument(
        "--loop-jets",
        type=int,
        default=200,
        help="jets for the loops; a tenth for clustering and triples",
    )
    parser.add_argument(
        "--batch", type=int, default=1000, help="jets per batch; a GPU gets a hundred times as many"
    )
    parser.add_argument("--constituents", type=int, default=100, help="slots per jet")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--toy", action="store_true", help="toy jets instead of simulated ones")
    parser.add_argument("--only", nargs="*", help="rows whose name contains one of these")
    parser.add_argument("--json", help="write the table to this file")
    args = parser.parse_args()
    torch.set_num_threads(1)
    (p4, mask), source = make_jets(args.jets, args.constituents, args.seed, args.toy)
    print(
        f"{args.jets} jets ({source}), {mask.sum(1).mean():.1f} of {args.constituents} slots filled; seed {args.seed}; torch {torch.__version__}; {platform.processor() or platform.machine()}; one thread"
    )
    rows = []
    for device in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        rates = machine_rates(device)
        print(f"\n{device}: copies {rates[0] / 1e9:.1f} GB/s, log1p {rates[1] / 1e6:.0f} M/s")
        print(
            f"{'':30}{'jets/s':>12}{'loop':>9}{'ratio':>8}{'asked':>7}{'agree':>8}{'peak MB':>9}{'B/jet':>8}{'fn/jet':>8}{'floor jets/s':>14}{'of floor':>10}"
        )
        for name in ROWS:
            if args.only and not any(o in name for o in args.only):
                continue
            r = measure(name, p4, mask, args, device, rates)
            rows.append(r)
            print(
                f"{name:30}{r['jets_per_s']:12,.0f}{r['loop_jets_per_s']:9,.0f}{r['ratio']:8,.0f}{r['asked'] or '':>7}{r['jets_agree']:8.1%}{r['peak_MB']:9,.0f}"
                f"{r['bytes_per_jet']:8,}{r['functions_per_jet']:8,.0f}{r['floor_jets_per_s']:14,.0f}{r['share_of_floor']:10.1%}",
                flush=True,
            )
    if args.json:
        with open(args.json, "w") as f:
            json.dump(
                dict(arguments=vars(args), source=source, torch=torch.__version__, rows=rows),
                f,
                indent=1,
            )


if __name__ == "__main__":
    main()
