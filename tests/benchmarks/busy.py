"""Training beside other programs: `vae` at batch 100, with and without a burner on every core.

    python tests/benchmarks/busy.py

Jets per second of the fastest of three epochs of 500 jets, in the order in which they ran; every line is a process of its own. The
rule is that of `train.threads`; without it PyTorch has a thread for every core.
"""

import json
import os
import subprocess
import sys

from jet_anomaly.core.workers import THREADS, cores

WORK = """
import json
from jet_anomaly.data.sample import packaged_jets
from jet_anomaly.detect.detector import make_detector
vae, jets = make_detector("vae"), packaged_jets("qcd", 500)
history = vae.fit(jets, epochs=3, batch_size=100, progress=False, device="cpu")
print(json.dumps(max(history["jets_per_second"])))
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


if __name__ == "__main__":
    cases = {"the rule": None, "a thread for every core": max(cores(), 2)}
    print(f"{cores()} cores; {'threads':>24} {'alone':>10} {'beside burners':>16}  jets/s")
    for name, threads in cases.items():
        quiet, others = rate(threads), burners()
        try:
            busy = rate(threads)
        finally:
            for other in others:
                other.kill()
                other.wait()
        print(f"{name:>33} {quiet:10.0f} {busy:16.0f}", flush=True)
