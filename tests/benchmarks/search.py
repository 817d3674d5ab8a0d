"""Speed of a scan of toys:  python tests/benchmarks/search.py [--toys 1000] [--masses 37]

Each toy spectrum of 50 bins is fitted without a signal and with one at every mass, by the compiled Newton steps in one thread.
Beside it stands Minuit on a few of the same fits, in the same process.
"""

import argparse
import time

import numpy as np

from jet_anomaly.search.background import dijet_terms, fit_spectrum
from jet_anomaly.search.bump import make_ranges, scan_toys


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--toys", type=int, default=1000)
    parser.add_argument("--masses", type=int, default=37)
    args = parser.parse_args()
    edges = np.linspace(2300, 6800, 51)
    shape = np.exp(dijet_terms((edges[1:] + edges[:-1]) / 2) @ (0, 10.0, 5.5))
    masses, rng = np.linspace(2600, 6200, args.masses), np.random.default_rng(0)
    print(f"{'events':>10}{'fits':>10}{'seconds':>10}{'ms per fit':>12}{'Minuit ms':>12}")
    for events in (10_000, 100_000, 1_000_000):
        expected = events * shape / shape.sum()
        ranges = make_ranges(rng.poisson(expected), edges, masses, (0.04,), 3, None, 13_000.0)
        toys = rng.poisson(expected, (args.toys, 50))
        scan_toys(toys[:2], ranges, (1, args.masses))  # compiles
        start = time.process_time()
        scan_toys(toys, ranges, (1, args.masses))
        seconds, fits = time.process_time() - start, args.toys * (args.masses + 1)
        start = time.process_time()
        for toy in toys[:20]:
            fit_spectrum(toy, ranges[0].grid, ranges[0].templates[args.masses // 4])
        minuit = (time.process_time() - start) / 20
        print(
            f"{events:>10,}{fits:>10,}{seconds:>10.2f}{1000 * seconds / fits:>12.4f}{1000 * minuit:>12.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
