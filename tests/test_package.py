"""What a user installs: the wheel and the source distribution hold every module and nothing else."""

import tarfile
import zipfile

import pytest
from helpers import MODULES, ROOT, copy, name, python


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    checkout = copy(tmp_path_factory.mktemp("package"))
    python("-m", "build", "--no-isolation", cwd=checkout)
    return checkout / "dist"


@pytest.mark.xdist_group("package")
def test_wheel_holds_the_library(dist):
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as wheel:
        names = set(wheel.namelist())
    assert {name(m) for m in MODULES} <= names
    assert all(n.startswith(("jet_anomaly/", "jet_anomaly-")) for n in names)
    assert any(n.endswith("entry_points.txt") for n in names)
    assert "jet_anomaly/data/sample.h5" in names
    assert next(dist.glob("*.whl")).stat().st_size < 4e6


@pytest.mark.xdist_group("package")
def test_source_distribution_can_be_built_from(dist):
    with tarfile.open(next(dist.glob("*.tar.gz"))) as sdist:
        names = {n.split("/", 1)[-1] for n in sdist.getnames()}
    assert {name(m) for m in MODULES} | {
        "settings.ini",
        "README.md",
        "LICENSE",
        "constraints.txt",
    } <= names


def test_readme_names_every_extra():
    from configparser import ConfigParser

    config = ConfigParser(delimiters=["="])
    config.read(ROOT / "settings.ini", encoding="utf-8")
    extras = {
        k.removesuffix("_requirements") for k in config["DEFAULT"] if k.endswith("_requirements")
    }
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert not [e for e in extras if f"`{e}`" not in readme]
