"""Privacy: strings in a row that look like e-mail addresses, phone numbers or keys.

Nothing here proves that a string is somebody's: it finds what has the form of one, so that a
person can look, or the row be left out. What finds them:

- e-mail: the form that browsers accept (HTML Standard, "valid e-mail address"), with a domain of
  at least two labels, outside the domains that RFC 2606 reserves for examples.
- phone: `phonenumbers`, the Python port of the library that Android uses: numbers that exist in
  the plan of their country. Written with + and the country's number anywhere, else in the way of
  the configured countries; a bare run of digits without + is no phone number.
- secret: the detectors of `detect-secrets` for keys of a known form (cloud providers, code hosts,
  payment, chat, private key headers, passwords in URLs), and a few forms that are newer than it.
  Its detectors of mere randomness are left out: prose, code and base64 would be full of them.

A finding is kept by place and shape, never by its characters.
"""

import functools
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from storage.corpus import Row
from storage.hits import PRIVACY_SCHEMA
from tasks.release_config import PrivacyConfig
from tasks.row_checks import hits_table

if TYPE_CHECKING:
    from detect_secrets.plugins.base import RegexBasedDetector

SHAPE_CHARS = 64
"""Characters of a shape that are kept."""

DETECTORS = (
    "aws.AWSKeyDetector",
    "azure_storage_key.AzureStorageKeyDetector",
    "basic_auth.BasicAuthDetector",
    "cloudant.CloudantDetector",
    "discord.DiscordBotTokenDetector",
    "github_token.GitHubTokenDetector",
    "gitlab_token.GitLabTokenDetector",
    "ibm_cloud_iam.IbmCloudIamDetector",
    "ibm_cos_hmac.IbmCosHmacDetector",
    "jwt.JwtTokenDetector",
    "mailchimp.MailchimpDetector",
    "npm.NpmDetector",
    "openai.OpenAIDetector",
    "private_key.PrivateKeyDetector",
    "pypi_token.PypiTokenDetector",
    "sendgrid.SendGridDetector",
    "slack.SlackDetector",
    "softlayer.SoftlayerDetector",
    "square_oauth.SquareOAuthDetector",
    "stripe.StripeDetector",
    "telegram_token.TelegramBotTokenDetector",
    "twilio.TwilioKeyDetector",
)
"""Of `detect_secrets.plugins`. Not Artifactory, whose form many words in capitals have."""

NEWER_SECRETS = {
    "Anthropic API Key": re.compile(r"sk-ant-[A-Za-z0-9_-]{20,}"),
    "GitHub Fine-grained Token": re.compile(r"github_pat_[A-Za-z0-9_]{60,}"),
    "Google API Key": re.compile(r"AIza[A-Za-z0-9_-]{35}"),
    "Hugging Face Token": re.compile(r"hf_[A-Za-z]{30,}"),
    "Private Key (encrypted)": re.compile(r"BEGIN ENCRYPTED PRIVATE KEY"),
}
"""Forms that `detect-secrets` does not know, by what it would call them."""

_KEY_END = re.compile(r"-----END [A-Z0-9 ]{1,40}-----")

NEEDLES = {"NPM tokens": ":_authToken="}
"""Secret type to what its form cannot do without: that form takes quadratic time on long lines."""

_EMAIL = re.compile(
    r"(?<![\w.!#$%&'*+/=?^`{|}~-])[\w.!#$%&'*+/=?^`{|}~-]{1,64}"
    r"@((?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_]{2,24})(?![\w-])"
)
_EXAMPLE_DOMAIN = re.compile(
    r"(?:^|\.)(?:example(?:\.(?:com|net|org))?|test|invalid|localhost)$", re.IGNORECASE
)
_IMAGE_AT_SCALE = re.compile(r"^[234]x\.(?:png|jpe?g|gif|webp|svg)$", re.IGNORECASE)
"""``logo@2x.png`` is a picture for dense screens."""

_DIGITS = re.compile(r"[+(]?\d(?:[\s().\u2010-\u2015/-]{0,3}\d){6}")
"""What every phone number has: seven digits, with little between them."""

_LONG_RUN = re.compile(r"[A-Za-z0-9_.+/=:-]{16}")
"""What every key has; the rest has a word of its own."""


@dataclass(frozen=True)
class PrivateString:
    """A string that looks private: its kind, what found it, and its place in the text."""

    kind: str
    detector: str
    start: int
    stop: int


class PrivacyCheck:
    """Looks for private strings in rows; a `RecordingCheck`."""

    name = "privacy"

    def __init__(self, config: PrivacyConfig) -> None:
        """Say which kinds to look for, and what becomes of rows that have some.

        Raises:
            ValueError: ``phone_regions`` has a region that there is not.
        """
        _require_regions(config.phone_regions)
        self._config = config
        self._found: dict[str, list[dict[str, Any]]] = {}

    @property
    def facts(self) -> dict[str, object]:
        """What was looked for."""
        return {"kinds": list(self._config.kinds), "regions": list(self._config.phone_regions)}

    def faults(self, rows: Sequence[Row]) -> list[str | None]:
        """Return what each row holds; None everywhere when findings are only reported."""
        faults: list[str | None] = []
        for row in rows:
            found = find_private(row.text, self._config.kinds, self._config.phone_regions)
            if found:
                self._found[row.row_id] = [_line(row, one) for one in found]
            removed = found and self._config.action == "remove"
            faults.append(_fault(found) if removed else None)
        return faults

    def hits(self, among: Collection[str] | None = None) -> pa.Table:
        """Return PRIVACY_SCHEMA, see `RecordingCheck`."""
        return hits_table(self._found, among, PRIVACY_SCHEMA)


def privacy_check(config: PrivacyConfig) -> PrivacyCheck | None:
    """Return the check of a release, None when it is off.

    Raises:
        ValueError: ``phone_regions`` has a region that there is not.
    """
    return None if config.action == "off" else PrivacyCheck(config)


def find_private(
    text: str,
    kinds: Collection[str] = ("email", "phone", "secret"),
    phone_regions: Sequence[str] = ("US",),
) -> list[PrivateString]:
    """Return the strings of a text that look private, by place.

    Args:
        text: Any text.
        kinds: ``email``, ``phone``, ``secret``.
        phone_regions: Countries whose national way of writing phone numbers is known.
    """
    finders: Mapping[str, Callable[[], Iterator[PrivateString]]] = {
        "email": lambda: _emails(text),
        "phone": lambda: _phones(text, phone_regions),
        "secret": lambda: _secrets(text),
    }
    found = {one for kind in kinds for one in finders[kind]()}
    return sorted(found, key=lambda one: (one.start, one.stop, one.kind, one.detector))


def shape(text: str, kind: str) -> str:
    """Return what a string looks like: letters as ``x``, digits as ``0``; a secret all ``*``."""
    head = text[:SHAPE_CHARS]
    if kind == "secret":
        return "*" * len(head)
    return "".join("0" if c.isdigit() else "x" if c.isalnum() else c for c in head)


def _emails(text: str) -> Iterator[PrivateString]:
    if "@" not in text:
        return
    for match in _EMAIL.finditer(text):
        domain = match[1]
        if not _EXAMPLE_DOMAIN.search(domain) and not _IMAGE_AT_SCALE.match(domain):
            yield PrivateString("email", "e-mail address", *match.span())


def _phones(text: str, regions: Sequence[str]) -> Iterator[PrivateString]:
    if not _DIGITS.search(text):
        return
    from phonenumbers import PhoneNumberMatcher

    for region in regions or (None,):
        for match in PhoneNumberMatcher(text, region):
            raw = match.raw_string
            if raw.startswith("+") or not raw.isdigit():
                yield PrivateString("phone", "phone number", match.start, match.end)


def _secrets(text: str) -> Iterator[PrivateString]:
    """Yield whole matches: what a detector would report of one may be its first letters alone."""
    if not _may_hold_secret(text):
        return
    for detector in _detectors():
        for form in _forms(detector, text):
            for match in form.finditer(text):
                if _is_valid(detector, match[0]):
                    stop = _end_of_key(text, match)
                    yield PrivateString("secret", detector.secret_type, match.start(), stop)
    for name, form in NEWER_SECRETS.items():
        for match in form.finditer(text):
            yield PrivateString("secret", name, match.start(), _end_of_key(text, match))


def _end_of_key(text: str, found: re.Match[str]) -> int:
    """Return where a string ends; a private key, known by its header, ends with its last line."""
    end = _KEY_END.search(text, found.end()) if "PRIVATE KEY" in found[0] else None
    return found.end() if end is None else end.end()


def _may_hold_secret(text: str) -> bool:
    return (
        _LONG_RUN.search(text) is not None
        or "PRIVATE KEY" in text
        or "PuTTY-User-Key" in text
        or ("://" in text and "@" in text)
    )


@functools.cache
def _detectors() -> "tuple[RegexBasedDetector, ...]":
    import importlib

    found = []
    for name in DETECTORS:
        module, _, detector = name.partition(".")
        loaded = importlib.import_module(f"detect_secrets.plugins.{module}")
        found.append(getattr(loaded, detector)())
    return tuple(found)


def _forms(detector: "RegexBasedDetector", text: str) -> Iterable[re.Pattern[str]]:
    """Return the forms a detector looks for; none where a text lacks what they all have."""
    needle = NEEDLES.get(detector.secret_type)
    return detector.denylist if needle is None or needle in text else ()


def _is_valid(detector: "RegexBasedDetector", found: str) -> bool:
    """Tell whether a string of the right form is what it looks like, where that can be told."""
    is_valid: Callable[[str], bool] = getattr(detector, "is_formally_valid", lambda _: True)
    return is_valid(found)


def _require_regions(regions: Sequence[str]) -> None:
    from phonenumbers import SUPPORTED_REGIONS

    unknown = sorted(set(regions) - set(SUPPORTED_REGIONS))
    if unknown:
        raise ValueError(
            f"privacy.phone_regions has {unknown}; expected countries as two capital letters, such "
            "as US or DE. Correct or remove them."
        )


def _line(row: Row, found: PrivateString) -> dict[str, Any]:
    return {
        "row_id": row.row_id,
        "kind": found.kind,
        "detector": found.detector,
        "start": found.start,
        "n_chars": found.stop - found.start,
        "shape": shape(row.text[found.start : found.stop], found.kind),
    }


def _fault(found: Sequence[PrivateString]) -> str:
    """Return what a row holds, without a character of it."""
    detectors = [one.detector for one in found]
    return ", ".join(f"{detectors.count(name)} x {name}" for name in sorted(set(detectors)))
