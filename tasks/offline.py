"""Keep the libraries from calling home: nothing leaves this machine unless the user asks.

`huggingface_hub`, `transformers` and `datasets` contact servers even for local files (request
counters, "is there a newer revision"). They read their switches once, on import, so the switches
are set before the import, and corrected in the modules where somebody imported them earlier.
"""

import os
import sys

_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
_ALWAYS = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
}
_READ_ON_IMPORT = {
    "huggingface_hub.constants": ("HF_HUB_OFFLINE",),
    "datasets.config": ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"),
}
_set_here: set[str] = set()


def forbid_network(*, online: bool) -> None:
    """Close the network for the Hugging Face libraries, or open it again.

    Telemetry and progress bars stay off either way. With ``online`` only what an earlier call
    closed is opened: a ``HF_HUB_OFFLINE=1`` that the user set is obeyed.

    Args:
        online: The stage's config permits downloads.
    """
    for name, value in _ALWAYS.items():
        os.environ.setdefault(name, value)
    for name in _OFFLINE:
        if online and name in _set_here:
            os.environ.pop(name, None)
            _set_here.discard(name)
        elif not online and not _is_on(name):
            os.environ[name] = "1"
            _set_here.add(name)
    offline = any(map(_is_on, _OFFLINE))
    for module_name, attributes in _READ_ON_IMPORT.items():
        module = sys.modules.get(module_name)
        for attribute in attributes:
            if hasattr(module, attribute):
                setattr(module, attribute, offline)


def _is_on(name: str) -> bool:
    """Read a switch as the libraries do: ``HF_HUB_OFFLINE=0`` leaves the network open."""
    return os.environ.get(name, "").upper() in {"1", "ON", "YES", "TRUE"}
