"""Making a detector imports that detector; names are read from the sources, and broken packages stay outside."""

import json

from helpers import python

from jet_anomaly.detect.registry import own_detectors

HEAVY = {"awkward", "uproot", "vector", "sklearn", "matplotlib", "pandas", "requests"}


def printed(code, **env):
    return json.loads(python("-c", code, **env).splitlines()[-1])


def test_a_detector_imports_itself_and_what_it_needs():
    code = """
import json, sys
from jet_anomaly.detect.detector import detector_names, make_detector
names = detector_names()
before = [m for m in sys.modules if m.startswith("jet_anomaly.detect.")]
make_detector("vae")
print(json.dumps([names, before, list(sys.modules)]))
"""
    names, before, modules = printed(code)
    assert not HEAVY & set(modules)
    assert {m.rpartition(".")[2] for m in before} == {
        "detector",
        "registry",
        "background",
        "folder",
        "inputs",
    }
    assert {m for m in modules if m.startswith("jet_anomaly.detect.")} - set(before) == {
        "jet_anomaly.detect.vae"
    }
    assert names == sorted(names) and set(own_detectors()) <= set(names)


def test_the_names_read_are_those_registered():
    code = """
import importlib, json, pkgutil
import jet_anomaly.detect as part
for module in pkgutil.iter_modules(part.__path__, part.__name__ + "."):
    importlib.import_module(module.name)
from jet_anomaly.detect.registry import REGISTRY, own_detectors
print(json.dumps([own_detectors(), {name: cls.__module__ for name, cls in REGISTRY.items()}]))
"""
    read, registered = printed(code)
    assert read == registered and len(read) > 10


PACKAGE = {
    "theirs.py": """
from dataclasses import dataclass
from jet_anomaly.detect.baselines import Cut
class Theirs(Cut):
    "A detector of another package."
""",
    "broken.py": "import a_package_that_is_not_there\n",
    "plugin-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n",
    "plugin-1.0.dist-info/entry_points.txt": """[jet_anomaly.detectors]
their_cut = theirs:Theirs
their_broken = broken:Broken
vae = theirs:Theirs
""",
}


def test_other_packages_add_detectors_and_break_none(tmp_path):
    for name, text in PACKAGE.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    code = f"""
import json, sys
sys.path.append({str(tmp_path)!r})
sys.modules["sklearn"] = None  # as if it were not installed
from jet_anomaly.detect.detector import detector_names, make_detector
from jet_anomaly.detect.registry import missing_detectors
try:
    make_detector("their_broken")
except ImportError as e:
    said = str(e)
made = {{name: type(make_detector(name)).__module__ for name in ("vae", "their_cut")}}
print(json.dumps([detector_names(), missing_detectors(), made, said]))
"""
    names, missing, made, said = printed(code)
    assert {"their_cut", "their_broken"} <= set(names)
    assert made == {"vae": "jet_anomaly.detect.vae", "their_cut": "theirs"}
    assert (
        "a_package_that_is_not_there" in missing["their_broken"] and said == missing["their_broken"]
    )
    assert "vae" not in missing and "pca" not in missing
