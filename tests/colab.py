"""A chapter's environment on somebody else's machine: what its install cell installs, and a GPU. Here both are played.

Hidden are the packages of the extras that the cell does not name. Hidden too are the generators, but for chapters that
simulate jets that the package does not hold; those without the generators have a cache of their own, without jets.
"""

import configparser
import json
import os
import re
import shutil
import sys
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib import metadata
from importlib.machinery import PathFinder
from pathlib import Path

from elsewhere import gpu
from helpers import ROOT
from packaging.requirements import Requirement

INSTALL = re.compile(r'^!pip install -q ([\w ]*)"jet_anomaly(?:\[([\w,]+)\])? @', re.M)
TOOLS = {"all", "dev", "book", "browser"}  # extras that no reader installs
GENERATORS = {"pythia8mc", "fastjet"}


def settings():
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "settings.ini")
    return parser["DEFAULT"]


def known(package):
    "A package's name as it is compared."
    return package.lower().replace("_", "-")


def packages(requirements):
    return {known(Requirement(r).name) for r in requirements.split()}


def cells(chapter):
    "Sources of the code cells."
    nb = json.loads(chapter.read_text(encoding="utf-8"))
    return ["".join(c["source"]) for c in nb["cells"] if c["cell_type"] == "code"]


def installed(sources):
    "Packages that the install cell of a chapter asks for, None where it has no such cell."
    found = INSTALL.search("\n".join(sources))
    if not found:
        return None
    extras = [f"{e}_requirements" for e in (found[2] or "").split(",") if e]
    wanted = [settings()[k] for k in ("requirements", *extras)]
    return set().union(map(known, found[1].split()), *map(packages, wanted))


@cache
def needed(package):
    "Packages that come with one, itself among them, as far as they are installed here."
    found, todo = set(), {package}
    while todo:
        found |= {one := todo.pop()}
        try:
            lines = metadata.requires(one) or []
        except metadata.PackageNotFoundError:
            continue
        parts = [Requirement(line) for line in lines]
        todo |= {
            known(r.name) for r in parts if not r.marker or r.marker.evaluate({"extra": ""})
        } - found
    return found


def optional():
    "Packages of the extras that readers install, and those that chapters name one by one."
    extras = [k for k in settings() if k.endswith("_requirements") and k[:-13] not in TOOLS]
    return {"dcor"}.union(*(packages(settings()[k]) for k in extras))


def share_kernels(used, own):
    "Copy the kernels that are compiled in one cache, and not yet in another, to it."
    for file in used.glob("kernels-*/**/*.nb[ic]"):
        target = own / file.relative_to(used)
        if not target.exists():
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            part = target.with_name(f"{target.name}.{os.getpid()}")
            shutil.copy2(file, part)
            part.replace(target)
    for kernels in own.glob("kernels-*"):
        kernels.chmod(0o700)


@contextmanager
def without(
    hidden,  # names of packages
):
    "Within it, this process cannot import some packages."
    provided = metadata.packages_distributions()
    modules = {m for m, by in provided.items() if hidden & set(map(known, by))}
    assert "jet_anomaly" not in sys.modules, "it may have looked already for what is to be hidden"
    for loaded in [m for m in sys.modules if m.partition(".")[0] in modules]:
        del sys.modules[loaded]  # by another package, when it was there

    class Rest(PathFinder):
        @classmethod
        def find_spec(cls, fullname, path=None, target=None):
            if fullname.partition(".")[0] not in modules:
                return super().find_spec(fullname, path, target)

    sys.meta_path[sys.meta_path.index(PathFinder)] = Rest
    if hidden & GENERATORS:
        used = Path(os.environ["JET_ANOMALY_CACHE"])
        own = used.with_name(f"{used.name}-without-jets")
        share_kernels(used, own)
        os.environ["JET_ANOMALY_CACHE"] = str(own)
    yield


def hidden_from(
    chapter,
    generators,  # False hides them, whatever the install cell says
):
    "Packages that a chapter does not install; none where it has no install cell."
    have = installed(cells(chapter))
    if have is None:
        return set()
    return optional() - set().union(*map(needed, have if generators else have - GENERATORS))


@contextmanager
def colab(
    chapter,
    generators=True,  # as in `hidden_from`
    device=True,  # False for no GPU
):
    "A chapter's environment: the packages of its install cell, and a GPU."
    with ExitStack() as stack:
        stack.enter_context(without(hidden_from(chapter, generators)))
        if device:
            stack.enter_context(gpu())
        yield
