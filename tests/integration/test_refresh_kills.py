"""SIGKILL of a whole refresh, again and again on its way; at the end the store is as of one run."""

import json
import random
import signal
from pathlib import Path

from child import child
from refresh_samples import refresh_settings, rows, write_inbox_file
from store_samples import tree_bytes

N_BLOCKS = 5
OF_A_RUN = ("quality", "environment.json", "moves.jsonl")
"""Times and places, which no two runs share."""

LEFT_BY_THE_LAST_KILL = ("releases/main/.lease", "releases/main/.latest")
"""Of a writer between a release and its link; the next one that writes a release clears them."""


def moments(seed: int, n_blocks: int) -> list[str]:
    """Return moments of death in the order in which a refresh comes to them."""
    chance = random.Random(seed)
    return [
        "rename:batches/0",
        f"done:{chance.randrange(1, n_blocks - 1)}",
        f"batch:{chance.randrange(4)}",
        "rename:rows.json",
        "rename:releases/main/latest",
    ]


def contents(store: Path) -> dict[str, bytes]:
    return {
        name: data
        for name, data in tree_bytes(store).items()
        if not set(OF_A_RUN) & set(name.split("/")) and not name.startswith(LEFT_BY_THE_LAST_KILL)
    }


def test_a_refresh_that_is_killed_on_and_on_ends_as_one_that_was_not(
    tmp_path: Path, tiny_llama: Path
) -> None:
    settings = refresh_settings(tmp_path, tiny_llama, **{"runtime.batch_tokens": 64})
    clean = settings.model_copy(update={"store": str(tmp_path / "clean" / "store")})
    store = Path(settings.store)
    write_inbox_file(tmp_path / "inbox" / "a.jsonl", rows(0, 8 * N_BLOCKS - 3))
    with child("refresh_child.py") as ask:

        def run(config: object, moment: str = "") -> int:
            return int(ask(json.dumps({"config": config.model_dump_json(), "moment": moment})))

        assert run(clean) == 0
        for moment in moments(0, N_BLOCKS):
            assert run(settings, moment) == -signal.SIGKILL, moment
        assert run(settings) == 0
    assert contents(store) == contents(Path(clean.store))
