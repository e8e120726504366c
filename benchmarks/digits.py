"""How many clips a second the built-in data set draws.

    python benchmarks/digits.py

Floor: every pixel is written once as coverage and three times as colour; copying as many floats once says what that
alone would take.
"""

from __future__ import annotations

import json
import platform
import time
from pathlib import Path

import numpy as np
import torch

from timeloom.data import DigitsSource, Window

CLIPS, REPEATS = 64, 12


def main() -> None:
    """Draw batches of 64 clips of 16 frames, 64×64; report the median."""
    source, window = DigitsSource(), Window(16, 8, 64, 64)
    source.draw_batch(range(CLIPS), window, [0.0] * CLIPS)
    seconds = []
    for repeat in range(REPEATS):
        indices = range(repeat * CLIPS, (repeat + 1) * CLIPS)
        started = time.perf_counter()
        source.draw_batch(indices, window, [0.0] * CLIPS)
        seconds.append(time.perf_counter() - started)
    median = float(np.median(seconds))
    pixels = torch.rand(CLIPS * 16 * 64 * 64 * 4)
    started = time.perf_counter()
    pixels.clone()
    copy = time.perf_counter() - started
    result = {
        "clips_per_s": round(CLIPS / median, 1),
        "ratio_to_one_copy_of_the_floats": round(median / copy, 1),
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "torch": torch.__version__,
    }
    print(json.dumps(result, indent=2))
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / "digits.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
