"""What a simulated jet costs, stage by stage:  python tests/benchmarks/simulate.py [--process qcd] [--preset full] [--batches 8]

One core, the batches a shard is made of. The floor is Pythia itself: it makes the events one by one in C++. "A loop" is a
simpler detector response, particle by particle.
"""

import argparse
import math
import platform
import resource
import time
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from jet_anomaly.data import response, simulate
from jet_anomaly.data.cluster import cluster
from jet_anomaly.data.processes import Generator, process_names, visible
from jet_anomaly.jet.substructure import stored_observables


def measure(times, name, function, *args):
    start = time.process_time()
    out = function(*args)
    times[name] += time.process_time() - start
    return out


def naive_response(event, rng):
    "One event of Pythia's read and smeared particle by particle, no bending, no energy flow: a lower limit of what a loop costs."
    out = []
    for i in range(event.size()):
        particle = event[i]
        if not particle.isFinal() or not particle.isVisible():
            continue
        pt, eta, phi, energy = particle.pT(), particle.eta(), particle.phi(), particle.e()
        if particle.isCharged():
            pt *= 1 + math.hypot(0.01, 1.5e-4 * pt) * rng.normal()
            out.append(
                (
                    pt * math.cosh(eta),
                    pt * math.cos(phi),
                    pt * math.sin(phi),
                    pt * math.sinh(eta),
                    particle.xProd(),
                    particle.yProd(),
                )
            )
        else:
            out.append(
                (
                    int(eta / 0.087),
                    int(phi / 0.087),
                    energy + math.hypot(0.05 * energy, 1.5 * math.sqrt(energy)) * rng.normal(),
                )
            )
    return out


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--process", default="qcd", choices=process_names())
    parser.add_argument("--preset", default="full", choices=("full", "fast"))
    parser.add_argument("--batches", type=int, default=8, help="of 250 events")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    sample, n, times, jets = (
        simulate.make_sample(args.process, args.seed, preset=args.preset),
        simulate.BATCH,
        defaultdict(float),
        0,
    )
    generator = measure(
        times, "Pythia starts", lambda: Generator(args.process, args.seed, preset=args.preset)
    )
    with TemporaryDirectory() as folder:
        for batch in range(args.batches):
            rng = np.random.default_rng(batch)
            record = measure(times, "Pythia nextBatch", generator.pythia.nextBatch, n).prt
            particles = measure(times, "visible particles", visible, record)
            seen = measure(times, "detector", response.respond, particles, rng)
            found = measure(
                times, "anti-kT", cluster, seen["p4"], np.bincount(seen["event"], minlength=n)
            )
            hard = np.flatnonzero(np.hypot(found[0][:, 1], found[0][:, 2]) > sample.pt[0])
            members = found[3][np.repeat(np.isin(np.arange(len(found[4])), hard), found[4])]
            mask = np.arange(found[4][hard].max()) < found[4][hard][:, None]
            p4 = np.zeros((*mask.shape, 4), np.float32)
            p4[mask] = seen["p4"][members]
            measure(times, "substructure", stored_observables, p4, mask)
            selected = measure(
                times, "select, pad (with anti-kT, substructure)", simulate._select, sample, seen, n
            )
            measure(times, "write", selected.to_hdf5, Path(folder) / f"{batch}.h5")
            jets += len(selected)
        naive = defaultdict(float)
        for _ in range(25):
            generator.pythia.next()
            measure(naive, "loop", naive_response, generator.pythia.event, rng)
    events, again = args.batches * n, times.pop("anti-kT") + times.pop("substructure")
    total = sum(times.values())
    print(
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, one core; {args.process}, {args.preset}, {events} events, {jets} jets"
    )
    print(f"{'stage':44}{'ms/event':>10}{'ms/jet':>10}{'share':>8}")
    for name, seconds in times.items():
        print(
            f"{name:44}{1e3 * seconds / events:10.2f}{1e3 * seconds / jets:10.2f}{seconds / total:8.1%}"
        )
    print(
        f"{'  of which anti-kT and substructure':44}{1e3 * again / events:10.2f}{1e3 * again / jets:10.2f}{again / total:8.1%}"
    )
    print(f"{'all':44}{1e3 * total / events:10.2f}{1e3 * total / jets:10.2f}")
    print(
        f"jets/s per core: {jets / total:.1f}; the floor, Pythia alone: {jets / times['Pythia nextBatch']:.1f}"
    )
    print(
        f"detector, arrays against a loop: {naive['loop'] / 25 / ((times['detector'] + times['visible particles']) / events):.1f} x"
    )
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
