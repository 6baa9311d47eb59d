"""Links that a browser opens from the Prefect UI: browsers refuse ``file:`` links from web pages.

`rise up` serves what is meant for people (reports, Data Docs, cards; no rows) of one store, and
tells its child processes where. Without it, or for other folders, artifacts give paths.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import quote, unquote, urlsplit

FOLDER, URL = "RISE_PAGES_FOLDER", "RISE_PAGES_URL"
"""Environment variables: a folder, and the address at which a web server shows it."""
SHOWN = (".html", ".css", ".js", ".png", ".svg", ".woff", ".woff2", ".json", ".md")
"""Endings of the files that are served; tables of rows are not among them."""
POLICY = "connect-src 'none'; form-action 'none'"
"""Pages may draw tables, but call nothing: neither Prefect's API nor other hosts."""
STOP_SECONDS = 0.05
"""How often the server looks whether it is to stop."""


def page_url(path: str | Path) -> str | None:
    """Return the address of a file or folder; None where no server is known to show it."""
    folder, url = os.environ.get(FOLDER), os.environ.get(URL)
    if not folder or not url:
        return None
    try:
        inside = Path(path).absolute().relative_to(Path(folder).absolute())
    except ValueError:
        return None
    return f"{url.rstrip('/')}/{quote(inside.as_posix())}"


class PagesHandler(SimpleHTTPRequestHandler):
    """Serves the pages of one folder, and nothing that a link in it leads out to."""

    def send_head(self):  # type: ignore[no-untyped-def] # noqa: ANN201 - as the base class
        """Refuse what is not meant for people."""
        folder = Path(self.directory).resolve()
        path = folder / unquote(urlsplit(self.path).path).lstrip("/")
        found = path.resolve()
        if not found.is_relative_to(folder) or not self._is_shown(found):
            self.send_error(404, "not a page of this store")
            return None
        return super().send_head()

    @staticmethod
    def _is_shown(path: Path) -> bool:
        hidden = any(part.startswith(".") for part in path.parts[-2:])
        return not hidden and (path.is_dir() or path.suffix in SHOWN)

    def end_headers(self) -> None:
        """Add the policy to every answer."""
        self.send_header("Content-Security-Policy", POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the terminal is for `rise up`."""


@contextmanager
def serving_pages(folder: Path, host: str, port: int) -> Iterator[str]:
    """Serve a folder's pages from a thread; yield their address.

    Args:
        folder: Pages below it are served.
        host: Address to listen at.
        port: Port to take, or any when it is taken: links of earlier runs then lead nowhere.
    """
    with _server(folder, host, port) as server:
        Thread(target=server.serve_forever, args=(STOP_SECONDS,), daemon=True).start()
        try:
            yield f"http://{host}:{server.server_address[1]}"
        finally:
            server.shutdown()


def _server(folder: Path, host: str, port: int) -> ThreadingHTTPServer:
    handler = partial(PagesHandler, directory=str(folder.absolute()))
    try:
        return ThreadingHTTPServer((host, port), handler)
    except OSError:
        return ThreadingHTTPServer((host, 0), handler)
