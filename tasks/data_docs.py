"""Data Docs that open complete without a network, also after their folder has moved.

Great Expectations links styles, scripts and its logo to public servers, and draws the index with
a script from there: offline the index lists no run. Here the pages are pointed at copies that lie
beside them (`data_docs_assets/`), and what has no copy is taken out.
"""

import re
import shutil
from pathlib import Path, PurePosixPath

ASSETS = Path(__file__).with_name("data_docs_assets")

COPIES = {
    "bootstrap.min.css": "css/bootstrap.min.css",
    "bootstrap-table.min.css": "css/bootstrap-table.min.css",
    "bootstrap-table-filter-control.css": "css/bootstrap-table-filter-control.min.css",
    "bootstrap-table-filter-control.min.css": "css/bootstrap-table-filter-control.min.css",
    "bootstrap-datepicker.min.css": "css/bootstrap-datepicker.min.css",
    "all.min.css": "css/fontawesome.min.css",
    "bootstrap.min.js": "js/bootstrap.min.js",
    "bootstrap-table.min.js": "js/bootstrap-table.min.js",
    "bootstrap-table-filter-control.min.js": "js/bootstrap-table-filter-control.min.js",
    "bootstrap-datepicker.min.js": "js/bootstrap-datepicker.min.js",
    "jquery-3.7.1.min.js": "js/jquery.min.js",
    "popper.min.js": "js/popper.min.js",
}
"""Last part of a linked address -> the copy of that file."""

KEPT_STATIC = frozenset({"favicon.ico", "logo-long.png"})
"""What pages use of the 4 MB that Great Expectations copies into every site."""

_LOADING_TAG = re.compile(
    r"<script\b[^>]*\bsrc=[^>]*>\s*</script>|<link\b[^>]*>|<img\b[^>]*>", re.IGNORECASE
)
_EXTERNAL = re.compile(r"""\b(src|href)=(["'])(?:https?:)?//([^"']*)\2""", re.IGNORECASE)
_FETCH_RULES = re.compile(r"""\s(?:integrity|crossorigin)=(["'])[^"']*\1""", re.IGNORECASE)
_NEWSLETTER = re.compile(r"<footer>.*?newsletter.*?</footer>", re.DOTALL)
_STYLE_URL = re.compile(r"""background:\s*url\((["']?)(?:https?:)?//[^)]*\1\)[^;}]*;?""")


def make_offline(docs: Path) -> None:
    """Rewrite the pages under ``docs`` so that opening them loads nothing from elsewhere.

    Links that a reader may click are left as they are.

    Args:
        docs: A Data Docs site as Great Expectations wrote it.
    """
    shutil.copytree(ASSETS, docs / "assets", ignore=shutil.ignore_patterns(".*"))
    for path in sorted((docs / "static").rglob("*"), reverse=True):
        if path.is_file() and path.name not in KEPT_STATIC:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    for page in docs.rglob("*.html"):
        up = "../" * (len(page.relative_to(docs).parts) - 1)
        page.write_text(offline_page(page.read_text("utf-8"), to_root=up), "utf-8")


def offline_page(html: str, *, to_root: str) -> str:
    """Return a page whose styles, scripts and images all lie in its own site.

    Args:
        html: The page as Great Expectations wrote it.
        to_root: From the page to the site's root: ``""`` or ``"../"`` repeated.
    """
    html = _LOADING_TAG.sub(lambda match: _local_tag(match.group(), to_root), html)
    html = _NEWSLETTER.sub("", _STYLE_URL.sub("", html))
    # the dark theme is one of the sheets that have no copy: half of it is worse than none
    return html.replace("@media (prefers-color-scheme: dark)", "@media not all")


def _local_tag(tag: str, to_root: str) -> str:
    if "favicon.ico" in tag:  # on pages of runs it is linked one folder too low
        return f'<link rel="shortcut icon" href="{to_root}static/images/favicon.ico"/>'
    found = _EXTERNAL.search(tag)
    if found is None:
        return tag
    attribute, quote, address = found.groups()
    name = PurePosixPath(address.partition("?")[0]).name
    if name == "logo-long.png":
        local = f"{to_root}static/images/{name}"
    elif name in COPIES:
        local = f"{to_root}assets/{COPIES[name]}"
    else:
        return ""
    tag = tag.replace(found.group(), f"{attribute}={quote}{local}{quote}")
    return _FETCH_RULES.sub("", tag)
