"""The cut of a release as a picture by itself: a whole SVG file, which loads nothing."""

import base64
import xml.etree.ElementTree as ET
from pathlib import Path

from report_samples import make_release

from tasks.report_picture import cut_picture

SVG = "{http://www.w3.org/2000/svg}"


def test_it_is_a_whole_file_with_the_bars_of_the_report(tmp_path: Path) -> None:
    url = cut_picture(make_release(str(tmp_path)))
    start = "data:image/svg+xml;base64,"
    assert url.startswith(start)
    picture = ET.fromstring(base64.b64decode(url.removeprefix(start)))
    assert picture.tag == f"{SVG}svg"
    groups = {one.get("class"): len(one) for one in picture.iter(f"{SVG}g")}
    assert groups["selected"] > 0
    assert groups["candidate"] > 0
    assert any("cut at" in (one.text or "") for one in picture.iter(f"{SVG}text"))
    style = picture.findtext(f"{SVG}style") or ""
    assert "url(" not in style
    assert "@import" not in style
