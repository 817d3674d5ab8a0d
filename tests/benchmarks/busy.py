"""Training beside other programs: `vae` at batch 100, with and without a burner on every core.

    python tests/benchmarks/busy.py [pairs] [rule | threads]

Every number is a process of its own that trains six epochs of 2,000 jets after a first one. Alone and beside the
burners are measured in pairs, one after the other, three pairs by default, and the medians are shown. Jets per second
of the clock say how long one waits; jets per second of the processor say whether time is lost in waiting for other
threads, and hardly depend on what else runs. The rule is that of `train.threads`; without it PyTorch has a thread for
every core.
"""

import json
import os
import statistics
import subprocess
import sys

from jet_anomaly.core.workers import THREADS, cores

WORK = """
import json, time
from jet_anomaly.data.sample import packaged_jets
from jet_anomaly.detect.detector import make_detector
vae, jets = make_detector("vae"), packaged_jets("qcd", 2000)
settings = dict(batch_size=100, patience=None, progress=False, device="cpu")
vae.fit(jets, epochs=1, **settings)
begin = time.perf_counter(), time.process_time()
vae.fit(jets, epochs=6, **settings)
ends = time.perf_counter(), time.process_time()
print(json.dumps([6 * len(jets) / (e - b) for b, e in zip(begin, ends)]))
"""


def rate(threads):
    env = {k: v for k, v in os.environ.items() if k not in THREADS}
    env |= {"JET_ANOMALY_THREADS": str(threads)} if threads else {}
    said = subprocess.run(
        [sys.executable, "-c", WORK], env=env, check=True, capture_output=True, text=True
    )
    return json.loads(said.stdout.splitlines()[-1])


def burners():
    return [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores())]


def pair(threads):
    "Jets per second, of the clock and of the processor, alone and beside the burners."
    quiet, others = rate(threads), burners()
    try:
        return *quiet, *rate(threads)
    finally:
        for other in others:
            other.kill()
            other.wait()


if __name__ == "__main__":
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    cases = {"the rule": None, "threads of all cores": max(cores(), 2)}
    only = sys.argv[2] if len(sys.argv) > 2 else ""
    print(
        f"{cores()} cores; jets/s {'of the clock':>32}{'ratio':>17}{'of the processor':>20}{'ratio':>9}"
    )
    for name, threads in ((n, t) for n, t in cases.items() if only in n):
        found = [pair(threads) for _ in range(pairs)]
        clock, processor, busy_clock, busy_processor = map(statistics.median, zip(*found))
        ratios = (statistics.median(f[i + 2] / f[i] for f in found) for i in (0, 1))
        print(
            f"{name:>24}{clock:11,.0f} → {busy_clock:8,.0f}{next(ratios):14.2f}"
            f"{processor:15,.0f} → {busy_processor:8,.0f}{next(ratios):8.2f}",
            flush=True,
        )
