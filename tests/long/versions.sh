#!/usr/bin/env bash
# Run the tests with another set of versions, in an environment of its own:
#   tests/long/versions.sh constraints-lowest.txt python3.11
#   tests/long/versions.sh constraints-newest.txt python3.13 -k "not notebooks"
# What follows the interpreter goes to pytest.
set -euo pipefail
cd "$(dirname "$0")/../.."
pins=$1 python=${2:-python3} place=${VERSIONS_FOLDER:-build}/versions-$(basename "$1" .txt)-${2:-python3}
shift; shift || true
[ -x "$place/bin/python" ] || "$python" -m venv "$place"
"$place/bin/pip" install -q -c "$pins" -e '.[simulate,read,emd,search,tensorboard,dev]'
"$place/bin/pip" list --format=freeze | grep -iE '^(torch|numpy|scipy|numba|h5py|awkward|uproot|scikit-learn|matplotlib|fastcore)=='
"$place/bin/python" -m pytest -q -n logical "$@"
