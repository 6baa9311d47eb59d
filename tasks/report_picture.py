"""The report's main picture by itself, for places that show pictures: a whole SVG file in a URL."""

import base64

from markupsafe import Markup

from storage.refs import ReleaseRef
from storage.releases import open_release
from tasks.page.markup import TEMPLATES, tag
from tasks.report_cut import cut_histogram
from tasks.report_data import read_report_data

CUT_LEGEND = (
    "Rows by value: released (teal), passed over (orange), not reached (grey); dashed: where "
    "chance alone would put them."
)
WIDTH, HEIGHT, MARGIN = 860, 320, 18
"""Pixels; the histogram's own height fits in."""


def cut_picture(ref: ReleaseRef) -> str:
    """Return the distribution of values and the cut of a release as a ``data:`` URL of an SVG.

    Raises:
        NotFoundError: There is no such release, or what it was made from is gone.
        CorruptionError: A file that it is drawn from is damaged.
    """
    picture = cut_histogram(read_report_data(open_release(ref)))
    style = Markup((TEMPLATES / "page.css").read_text(encoding="utf-8"))
    inside = tag("svg", picture, x=MARGIN, y=MARGIN / 2, width=WIDTH - 2 * MARGIN, height=HEIGHT)
    whole = tag(
        "svg",
        tag("style", style),
        tag("rect", width="100%", height="100%", style="fill: var(--paper)"),
        inside,
        xmlns="http://www.w3.org/2000/svg",
        width=WIDTH,
        height=HEIGHT,
    )
    return f"data:image/svg+xml;base64,{base64.b64encode(whole.encode()).decode()}"
