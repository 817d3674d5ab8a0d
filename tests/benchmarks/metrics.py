"""Speed of the evaluation beside other ways to the same number:  python tests/benchmarks/metrics.py [--jets 10000000]

Times are processor seconds of one thread, the best of --repeat runs, each in a process of its own so that the peak
memory is its own. The floor is the time to copy the bytes that any way must touch: the scores once for a curve, the
windows once for the ranks.
"""

import argparse
import multiprocessing
import resource
import time

import numpy as np


def two_classes(n):
    rng = np.random.default_rng(0)
    return rng.normal(size=n // 2).astype(np.float32), rng.normal(1, 1, n // 2).astype(np.float32)


def with_mass(n, seed=0):
    rng = np.random.default_rng(seed)
    mass = 20 + rng.gamma(2.0, 35, n)
    return 2 * np.log(mass) + rng.normal(size=n), mass


def ours_auc(n):
    from jet_anomaly.evaluate.metrics import auc

    b, s = two_classes(n)
    return lambda: auc(b, s)


def sklearn_auc(n):
    from sklearn.metrics import roc_auc_score

    scores, labels = np.concatenate(two_classes(n)), np.repeat([0, 1], n // 2)
    return lambda: roc_auc_score(labels, scores)


def loop_auc(n):
    "Jet by jet: how many background jets score lower."
    b, s = two_classes(n)
    return lambda: sum((b < x).sum() + 0.5 * (b == x).sum() for x in s) / len(b) / len(s)


def one_replica(n):
    from jet_anomaly.evaluate.metrics import Sweep, auc, replicas

    sweep = Sweep(*two_classes(n))
    replicas(auc, sweep, n=1)
    return lambda: replicas(auc, sweep, n=1)


def sorted_replica(n):
    "A bootstrap replica the plain way: draw, and sort again."
    from jet_anomaly.evaluate.metrics import auc

    (b, s), rng = two_classes(n), np.random.default_rng(0)
    return lambda: auc(rng.choice(b, len(b)), rng.choice(s, len(s)))


def ours_dcor(n):
    from jet_anomaly.evaluate.decorrelation import distance_correlation

    return lambda: distance_correlation(*with_mass(n))


def package_dcor(n):
    import dcor

    x, y = with_mass(n)
    dcor.distance_correlation(x[:50], y[:50])  # compiles
    return lambda: dcor.distance_correlation(x, y)


def table_dcor(n):
    "By the table of jets × jets."
    x, y = with_mass(n)

    def covariance(a, b):
        return (a * b).mean() + a.mean() * b.mean() - 2 * (a.mean(1) * b.mean(1)).mean()

    def run():
        a, b = (np.abs(v[:, None] - v) for v in (x, y))
        return np.sqrt(covariance(a, b) / np.sqrt(covariance(a, a) * covariance(b, b)))

    return run


def ours_rank(n):
    from jet_anomaly.evaluate.decorrelation import MassDecorrelated

    fitted, test = MassDecorrelated().fit(*with_mass(50_000, 1)), with_mass(n)
    return lambda: fitted.transform(*test)


def loop_rank(n):
    "Jet by jet: the rank among the 600 background jets nearest in mass."
    (score, mass), test = with_mass(50_000, 1), with_mass(n)
    order = np.argsort(mass)
    score, mass = score[order], mass[order]

    def one(s, m):
        first = min(max(np.searchsorted(mass, m) - 300, 0), len(mass) - 600)
        return (score[first : first + 600] >= s).mean()

    return lambda: [one(s, m) for s, m in zip(*test)]


def ours_p_value(n):
    from jet_anomaly.evaluate.calibrate import Calibration

    fitted, (scores, _) = Calibration().fit(with_mass(100_000, 1)[0]), with_mass(n)
    return lambda: fitted.p_value(scores)


# what → (how, bytes per jet that any way must touch)
CASES = {
    "AUC": ({"ours": ours_auc, "scikit-learn": sklearn_auc, "loop over jets": loop_auc}, 4),
    "one bootstrap replica": ({"ours": one_replica, "sorted again": sorted_replica}, 4),
    "distance correlation": (
        {"ours": ours_dcor, "dcor (compiled)": package_dcor, "table of pairs": table_dcor},
        16,
    ),
    "rank at fixed mass": ({"ours": ours_rank, "loop over jets": loop_rank}, 600 * 16),
    "p-value": ({"ours": ours_p_value}, 8),
}
QUADRATIC = {
    "loop over jets": 20_000,
    "table of pairs": 5_000,
}  # jets at which the slow ways are tried


def measured(make, n, repeat, pipe):
    run, times = make(n), []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(repeat):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    pipe.send((min(times), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--jets",
        type=int,
        default=10_000_000,
        help="for the AUC and its bootstrap; a tenth for the rest",
    )
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    block = np.ones(25_000_000, np.float32)
    start = time.process_time()
    block.copy()
    bandwidth = block.nbytes / (time.process_time() - start)
    print(
        f"{'':<24}{'way':<18}{'jets':>12}{'seconds':>10}{'jets/s':>14}{'× ours':>9}{'MiB more':>10}{'floor s':>10}"
    )
    for what, (ways, size) in CASES.items():
        full, ours = (args.jets if "AUC" in what or "replica" in what else args.jets // 10), None
        for way, make in ways.items():
            n = min(QUADRATIC.get(way, full), full)
            here, there = multiprocessing.Pipe()
            child = multiprocessing.get_context("fork").Process(
                target=measured, args=(make, n, args.repeat, there)
            )
            child.start()
            seconds, memory = here.recv()
            child.join()
            ours = ours or seconds / n
            print(
                f"{what:<24}{way:<18}{n:>12,}{seconds:>10.3f}{n / seconds:>14,.0f}"
                f"{seconds / n / ours:>9.1f}{memory:>10.0f}{n * size / bandwidth:>10.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
