"""Draw the picture of the title page, nbs/_static/jets.svg:  python nbs/_ext/picture.py"""

from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402

from jet_anomaly.data.sample import packaged_jets  # noqa: E402
from jet_anomaly.evaluate.colours import CLASSES  # noqa: E402

OUT = Path(__file__).resolve().parents[1] / "_static/jets.svg"
KINDS = {  # name, title, class, and what is smallest for a clear one (most jets are not clear)
    "qcd": ("a quark or a gluon", "QCD", lambda o: np.abs(o["mass"] - 60)),
    "w": ("a W boson", "W", lambda o: o["tau21"] + (np.abs(o["mass"] - 80) > 8)),
    "top": ("a top quark", "top", lambda o: o["tau32"] + (np.abs(o["mass"] - 173) > 12)),
    "higgs4": (
        "a heavy Higgs boson",
        "Higgs",
        lambda o: o["tau4"] / o["tau3"] + (np.abs(o["mass"] - 174) > 12),
    ),
}


def draw():
    plt.rcParams["svg.hashsalt"] = "jets"  # the same bytes every time
    fig, axes = plt.subplots(1, 4, figsize=(10, 2.9), sharex=True, sharey=True)
    for ax, (name, (title, kind, clear)) in zip(axes, KINDS.items()):
        jets = packaged_jets(name, 500)
        i = int(np.argmin(clear(jets.observables)))
        px, py, pz = jets.p4[i, jets.mask[i], 1:].T
        pt, o = np.hypot(px, py), jets.observables
        phi = np.angle(np.exp(1j * (np.arctan2(py, px) - o["phi"][i])))
        ax.scatter(np.arcsinh(pz / pt) - o["eta"][i], phi, s=2 * pt, alpha=0.5, color=CLASSES[kind])
        ax.set(title=title, xlabel="Δη", xlim=(-0.9, 0.9), ylim=(-0.9, 0.9), aspect="equal")
    axes[0].set_ylabel("Δφ [rad]")
    fig.tight_layout()
    fig.savefig(OUT, metadata={"Date": None, "Creator": None}, facecolor="white")


if __name__ == "__main__":
    draw()
