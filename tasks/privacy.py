"""Privacy: strings in a row that look like e-mail addresses, phone numbers or keys."""

from collections.abc import Collection, Sequence

import pyarrow as pa

from storage.corpus import Row
from tasks.release_config import PrivacyConfig


class PrivacyCheck:
    """Looks for private strings in rows; a `RecordingCheck`."""

    name = "privacy"

    def faults(self, rows: Sequence[Row]) -> list[str | None]:
        """Return what each row holds; None everywhere when findings are only reported."""
        raise NotImplementedError

    def hits(self, among: Collection[str] | None = None) -> pa.Table:
        """Return PRIVACY_SCHEMA, see `RecordingCheck`."""
        raise NotImplementedError


def privacy_check(config: PrivacyConfig) -> PrivacyCheck | None:
    """Return the check of a release, None when it is off."""
    raise NotImplementedError
