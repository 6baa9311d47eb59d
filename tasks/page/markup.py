"""HTML and SVG that cannot be broken out of: one function for elements, one for templates.

Whatever is not `Markup` already is made visible and escaped, in both; nobody has to remember it.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from tasks.page import text

TEMPLATES = Path(__file__).with_name("templates")

Content = str | Markup | int | float | None
"""Numbers are written as they are; None is left out."""


def tag(name: str, *children: Content, **attributes: Content) -> Markup:
    """Return an element.

    Args:
        name: Its name; ``path``, ``line``, ``rect`` and the like close themselves when empty.
        children: What is in it.
        attributes: ``class_`` stands for ``class``, an underscore inside a name for a hyphen;
            None leaves an attribute out, the empty string writes its name alone.
    """
    written = Markup("").join(
        Markup(' {}="{}"').format(_attribute(key), safe(value))
        for key, value in attributes.items()
        if value is not None
    )
    inside = joined(*children)
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(name), written, inside)


def joined(*children: Content) -> Markup:
    """Return contents one after another."""
    return Markup("").join(safe(child) for child in children if child is not None)


def safe(value: Content) -> Markup:
    """Return a value as markup that shows it: visible and escaped, unless it is markup already."""
    if isinstance(value, Markup):
        return value
    if isinstance(value, float):
        return Markup(f"{value:.3f}".rstrip("0").rstrip("."))
    return escape(text.visible(str(value)))


def rendered(template: str, **values: Any) -> Markup:
    """Return a template of `TEMPLATES` filled in."""
    return Markup(environment().get_template(template).render(**values))


@lru_cache(maxsize=1)
def environment() -> Environment:
    """Return the template environment: everything escaped, a missing name is an error."""
    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_final,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        number=text.number,
        percent=text.percent,
        size=text.size,
        duration=text.duration,
        excerpt=text.excerpt,
        shortened=text.shortened,
        count=text.count,
    )
    return made


def _final(value: Any) -> Any:
    return text.visible(value) if type(value) is str else value


def _attribute(name: str) -> Markup:
    return Markup(name.rstrip("_").replace("_", "-"))
