"""How an inbox is watched: what counts as settled, what a deleted file means, when a run fails."""

from pydantic import Field

from tasks.stage_config import StageConfig


class RefreshConfig(StageConfig):
    """Settings of a refresh; they change which rows come in when, never a number of a row."""

    settle_seconds: float = Field(
        5.0,
        ge=0.0,
        title="Settle time",
        description="A file changed less than so many seconds ago may still be written; it is left "
        "to the next run.",
    )
    withdraw_deleted: bool = Field(
        default=False,
        title="Withdraw rows of deleted files",
        description="Off: a file may be deleted once it was taken, and its rows stay in use.",
    )
    fail_on_refused: bool = Field(
        default=False,
        title="Fail when a file is refused",
        description="After everything else was released. Off: the run ends with a warning.",
    )
    new_index: bool = Field(
        default=True,
        title="New index for new settings",
        description="Another model or signature makes a new index beside the old one, and the name "
        "is switched to it. Off: such settings are refused.",
    )
