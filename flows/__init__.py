"""Prefect flows, one stage a file, and the ``rise`` command over the same stages."""

import sys
from pathlib import PurePath

# To look for hooks of a flow whose process died, Prefect runs a script in a folder of its own. That
# folder is then searched first, and its storage.py would hide the package of that name.
sys.path[:] = [path for path in sys.path if PurePath(path).parts[-2:] != ("prefect", "runner")]
