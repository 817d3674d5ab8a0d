#!/usr/bin/env bash
# Run the tests with another set of versions, in an environment of its own:
#   tests/long/versions.sh constraints-lowest.txt python3.11
#   tests/long/versions.sh constraints.txt python3.13 -k "not book"
# What follows the interpreter goes to pytest. The tools that run chapters need a newer fastcore than the library:
# where they cannot be had together with the set, chapters run last, with that one package newer.
set -euo pipefail
cd "$(dirname "$0")/../.."
pins=$1 python=${2:-python3} place=${VERSIONS_FOLDER:-build}/versions-$(basename "$1" .txt)-${2:-python3}
shift; shift || true
[ -x "$place/bin/python" ] || "$python" -m venv "$place"
"$place/bin/pip" install -q -c "$pins" -e '.[simulate,read,remote,parquet,hepmc,emd,search]' \
    'pytest>=8,<9.2' pytest-xdist hypothesis dcor packaging
tests() { "$place/bin/python" -m pytest -q -n logical "$@"; }
versions() { "$place/bin/pip" list --format=freeze | grep -iE '^(torch|numpy|scipy|numba|h5py|awkward|uproot|scikit-learn|matplotlib|fastcore)=='; }
if "$place/bin/pip" install -q -c "$pins" -e '.[dev,tensorboard]'; then
    versions
    tests "$@"
else # first the rest with the set, then chapters with the fastcore that they need
    versions
    tests --ignore=tests/test_notebooks.py --ignore=tests/test_sync.py --ignore=tests/test_types.py "$@" || failed=1
    grep -v '^fastcore' "$pins" > "$place/pins.txt"
    "$place/bin/pip" install -q -c "$place/pins.txt" -e '.[dev,tensorboard]'
    tests tests/test_notebooks.py "$@"
    exit "${failed:-0}"
fi
