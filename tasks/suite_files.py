"""The suite of each gate: the shipped one, or the user's copy where what is locked was kept.

A file that is not valid is never half used.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from storage.files import digest, write_bytes
from storage.roots import fetched, shown, store_folder
from tasks.quality_config import QualityConfig
from tasks.suite_reader import Entry, columns_of, did_you_mean, read_tables
from tasks.suite_terms import GATES

SHIPPED_FOLDER = Path(__file__).with_name("suites")
SUFFIX = ".yaml"


class SuiteError(ValueError):
    """A suite that cannot be used; every problem has its file and line.

    Args:
        problems: One text for each.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(
            "\n".join(
                [
                    "the quality suites are not valid:",
                    *(f"  {problem}" for problem in self.problems),
                    "Mend them and run `rise quality check FOLDER`.",
                ]
            )
        )


@dataclass(frozen=True)
class GateSuite:
    """The expectations of one gate.

    Attributes:
        gate: Which.
        tables: Each table's expectations, in their order.
        path: The edited file; None for the shipped suite.
    """

    gate: str
    tables: Mapping[str, tuple[Entry, ...]]
    path: Path | None = None

    @property
    def origin(self) -> str:
        """Where it is from, for people."""
        return "shipped" if self.path is None else shown(self.path)

    @property
    def sha256(self) -> str:
        """Digest of what it demands and says of failing rows; comments and layout are no part."""
        return digest(
            {
                table: [[*entry.rule, entry.reason] for entry in entries]
                for table, entries in self.tables.items()
            }
        )

    @property
    def is_shipped(self) -> bool:
        """Whether it demands just what the shipped suite does."""
        return self.path is None or self.sha256 == shipped_suite(self.gate).sha256

    def entries(self) -> Iterator[tuple[str, Entry]]:
        """Yield every expectation with its table."""
        for table, entries in self.tables.items():
            for entry in entries:
                yield table, entry


@cache
def shipped_suite(gate: str) -> GateSuite:
    """Return the suite that a gate has unless the user gives another."""
    name = f"{gate}{SUFFIX}"
    tables, problems = read_tables(SHIPPED_FOLDER / name, gate, shown=f"shipped {name}")
    if problems:
        raise SuiteError(problems)
    return GateSuite(gate, tables)


def load_suite(gate: str, config: QualityConfig) -> GateSuite:
    """Return the suite of a gate: from the folder, if that has one, else the shipped.

    Raises:
        SuiteError: The file, or the folder, cannot be used; lists every problem.
    """
    suite, problems = read_suite(gate, config)
    if problems:
        raise SuiteError(problems)
    return suite


def read_suite(gate: str, config: QualityConfig) -> tuple[GateSuite, list[str]]:
    """Return the suite of a gate as far as it can be read, and every problem with it."""
    if config.folder is None:
        return shipped_suite(gate), []
    folder = fetched(store_folder(config.folder), reports=True)
    problems = _folder_problems(folder)
    path = folder / f"{gate}{SUFFIX}"
    if not path.is_file():
        return shipped_suite(gate), problems
    tables, faults = read_tables(path, gate, shown=shown(path))
    if not faults:
        faults = _changed_locks(path, gate, tables)
    return GateSuite(gate, tables, path), [*problems, *faults]


def write_suites(folder: str | Path) -> tuple[list[Path], list[Path]]:
    """Write the shipped suites into a folder; return files that were written and that were there.

    Raises:
        StorageError: The folder cannot be written.
    """
    written, kept = [], []
    place = fetched(store_folder(folder), reports=True)
    for gate in GATES:
        path = place / f"{gate}{SUFFIX}"
        if path.exists():
            kept.append(path)
        else:
            write_bytes(path, (SHIPPED_FOLDER / path.name).read_bytes())
            written.append(path)
    return written, kept


def described_suites(
    config: QualityConfig,
) -> list[tuple[GateSuite, list[tuple[str, str, str, str, str]]]]:
    """Return every gate's suite with a line an expectation, for people.

    Returns:
        With each suite: table, severity, description, type with arguments, ``locked`` or nothing.

    Raises:
        SuiteError: A suite cannot be used.
    """
    found = []
    for gate in GATES:
        suite = load_suite(gate, config)
        found.append((suite, [_described(table, entry) for table, entry in suite.entries()]))
    return found


def _described(table: str, entry: Entry) -> tuple[str, str, str, str, str]:
    kwargs = ", ".join(f"{name}={value}" for name, value in entry.kwargs.items())
    locked = "locked" if entry.locked else ""
    return table, entry.severity, entry.description or "", f"{entry.type}({kwargs})", locked


def _folder_problems(folder: Path) -> list[str]:
    if not folder.is_dir():
        return [
            f"{folder}: there is no such folder; `rise quality init --folder {folder}` makes it"
        ]
    known = {f"{gate}{SUFFIX}" for gate in GATES}
    return [
        f"{path}: no gate has this name{did_you_mean(path.stem, GATES)}; expected "
        f"{', '.join(sorted(known))}"
        for path in sorted(folder.iterdir())
        if path.suffix in (".yaml", ".yml") and path.name not in known
    ]


def _changed_locks(path: Path, gate: str, tables: Mapping[str, tuple[Entry, ...]]) -> list[str]:
    problems = []
    for table, locked in shipped_suite(gate).entries():
        rules = [entry.rule for entry in tables.get(table, ())]
        if locked.locked and locked.rule not in rules:
            columns = ", ".join(str(name) for _, name in columns_of(locked.kwargs))
            problems.append(
                f"{path}: table {table!r}: {locked.type}({columns}) is locked: the program relies "
                "on it. Put it back as `rise quality init` writes it"
            )
    return problems
