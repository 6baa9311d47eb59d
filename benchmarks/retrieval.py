"""How well do the signatures of a model lead back to labelled rows? One command, one JSON file.

    python benchmarks/retrieval.py FOLDER --output results.json

FOLDER has train.jsonl (instruction / input / output / label or text / label) and one or more
queries*.jsonl (prompt, text, label); rows and queries of one label belong together. Every method
sees the same texts; metrics as in rise_ops/METHOD.md.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from storage.refs import CorpusRef, IndexRef
from tasks.config import (
    FilesSource,
    IndexConfig,
    InstructionFields,
    ModelConfig,
    RowsConfig,
    RuntimeConfig,
    ScoreConfig,
    TextFields,
)
from tasks.corpus import ingest
from tasks.evaluation import compare_methods
from tasks.queries import make_query_set
from tasks.scoring import score
from tasks.signature_config import PRESETS
from tasks.signatures import build_index

CUTS = (10, 50)


def main() -> None:
    arguments = _arguments()
    preset = PRESETS[arguments.preset]
    index_config = IndexConfig(model=ModelConfig(name=arguments.model), signature=preset)
    runtime = RuntimeConfig(device=arguments.device)
    with tempfile.TemporaryDirectory() as store:
        corpus, index = CorpusRef(store, "bench"), IndexRef(store, "bench")
        rows = labelled_rows(arguments.folder / "train.jsonl")
        ingest(corpus, rows, index_config.model)
        started = time.monotonic()
        built = build_index(index, corpus, index_config, runtime)
        result: dict[str, Any] = {
            "command": f"python benchmarks/retrieval.py {arguments.folder.name}",
            "preset": arguments.preset,
            "model": arguments.model,
            "dtype": built.dtype,
            "device": built.device,
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "rows": built.n_rows,
            "tokens": built.n_tokens,
            "tokens_per_second": round(built.tokens_per_second, 1),
            "index_seconds": round(time.monotonic() - started, 1),
            "index_bytes": built.n_bytes,
            "queries": {},
        }
        for path in sorted(arguments.folder.glob("queries*.jsonl")):
            result["queries"][path.stem] = measured_queries(store, index, path, runtime)
    text = json.dumps(result, indent=1)
    arguments.output.write_text(f"{text}\n")
    print(text)


def measured_queries(store: str, index: IndexRef, path: Path, runtime: RuntimeConfig) -> list[Any]:
    fields = TextFields(prompt="prompt")
    queries = RowsConfig(source=_file(path), fields=fields, label_field="label")
    asked = make_query_set(store, path.stem, index, queries, runtime)
    scored = score(index, asked.ref, ScoreConfig(full_matrix=True), runtime)
    return [vars(method) for method in compare_methods(scored.ref, ks=CUTS)]


def labelled_rows(path: Path) -> RowsConfig:
    # the queries are an instruction, an input and an answer, a line each: rows must look alike
    with path.open() as file:
        instructions = "instruction" in json.loads(file.readline())
    fields = InstructionFields(style="plain") if instructions else TextFields()
    return RowsConfig(source=_file(path), fields=fields, label_field="label")


def _file(path: Path) -> FilesSource:
    return FilesSource(paths=(str(path),))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--preset", default="paper", choices=sorted(PRESETS))
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path, default=Path("retrieval.json"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
