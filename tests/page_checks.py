"""What every page of the project is checked for: nothing in it loads, runs or hides."""

from html.parser import HTMLParser

ELEMENTS = """
    html head meta title style body a header p h1 h2 h3 h4 dl div dt dd nav ol li main section
    figure figcaption ul svg rect line text path g circle table thead tbody tr th td bdi article
    strong span code mark details summary pre footer
"""
"""Everything that a report is made of; nothing in it loads or runs."""

ATTRIBUTES = """
    lang charset http-equiv content name class href id aria-label aria-labelledby aria-hidden role
    tabindex scope dir title width height x y dx x1 x2 y1 y2 cx cy r d viewbox preserveaspectratio
    vector-effect text-anchor data-name
"""

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src="http://example.org/x.png" onerror="alert(1)">',
    "</style><style>@import url(//example.org/a.css);</style>",
    "\u202eright to left\u202c and \x1b[31mred\x00",
    "[link](javascript:alert(1)) <a href='javascript:alert(1)'>x</a>",
    "{{ 7 * 7 }} {% raw %} &lt;b&gt; <!-- --><![CDATA[ ]]>",
    "שלום עולם, مرحبا بالعالم, \u200b\ufeff 日本語",
]


class Reader(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data
