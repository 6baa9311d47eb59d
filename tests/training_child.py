"""Trains as asked by one line, keeping its state at every step; dies of SIGKILL before a step."""

import json
import os
import signal
import sys
from pathlib import Path

from tiny_rows import tiny_texts

import tasks.training as training
from tasks.config import ModelConfig
from tasks.evaluate.method import LabelledText
from tasks.trainer import Fit
from tasks.training_config import BlocksTraining, TrainingConfig

model, folder, last = json.loads(sys.stdin.readline())
training.RESUME_SECONDS = 0.0
advance = Fit.advance


def dying(fit: Fit) -> None:
    """Take a step, unless it is the one to die before."""
    if fit.step == last:
        os.kill(os.getpid(), signal.SIGKILL)
    advance(fit)


Fit.advance = dying  # type: ignore[method-assign]
rows = [
    LabelledText(f"t{number}", text, min(3, len(text)), "one")
    for number, text in enumerate(tiny_texts(10))
]
config = TrainingConfig(
    trained=BlocksTraining(blocks=1),
    epochs=2,
    batch_rows=4,
    learning_rate=3e-3,
    max_tokens=24,
    checkpoints=1,
)
training.train(ModelConfig(name=model, dtype="float32"), rows, config, Path(folder))
sys.stdout.write("finished\n")
