"""How Data Docs are drawn: by Great Expectations, with templates that are compiled once a process.

As it is, each view of each site compiles some fifty templates again: a third of a small gate.
"""

from pathlib import Path
from types import CodeType
from typing import Any

from great_expectations.render.view import DefaultJinjaIndexPageView, DefaultJinjaPageView
from jinja2 import BytecodeCache
from jinja2.bccache import Bucket


def site_config(docs: Path) -> dict[str, Any]:
    """Return what Great Expectations is told about a site in the folder ``docs``."""
    page = {"view": {"module_name": __name__, "class_name": PageView.__name__}}
    index = {"view": {"module_name": __name__, "class_name": IndexView.__name__}}
    return {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder", **index},
        "site_section_builders": dict.fromkeys(("expectations", "validations", "profiling"), page),
        "store_backend": {
            "class_name": "TupleFilesystemStoreBackend",
            "base_directory": str(docs.resolve()),
        },
    }


class _Compiled(BytecodeCache):
    """Code of templates by what they are made of."""

    def __init__(self) -> None:
        self._code: dict[tuple[str, str], CodeType] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        """Give the bucket the code that its template was compiled to before, if it was."""
        bucket.code = self._code.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keep what was compiled."""
        if bucket.code is not None:
            self._code[bucket.key, bucket.checksum] = bucket.code


_COMPILED = _Compiled()


class PageView(DefaultJinjaPageView):
    """A page of a suite or of a run."""

    def __init__(self) -> None:
        super().__init__()
        self.env.bytecode_cache = _COMPILED


class IndexView(DefaultJinjaIndexPageView):
    """The page that lists the others."""

    def __init__(self) -> None:
        super().__init__()
        self.env.bytecode_cache = _COMPILED
