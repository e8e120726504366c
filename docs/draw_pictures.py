"""Draw the pictures of README and model card: samples of the zoo model, and the curves of the runs that are here.

python docs/draw_pictures.py          # after recipes of recipes/digits have run; writes docs/pictures/
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from timeloom import TextToVideoPipeline
from timeloom.cli import main as timeloom
from timeloom.data import write_contact_sheet

PICTURES = Path(__file__).parent / "pictures"
RUNS = Path("runs/digits")
STAGES = ("text_encoder", "autoencoder", "autoencoder_whole", "image", "image_fine", "video_shift", "video_shift_fine")
TOUR = (
    "a red seven moves left on black",
    "a green three bounces on stripes",
    "a blue zero grows on a white background",
    "a yellow four spins on a checkerboard",
)


def draw_curves() -> None:
    """Training and held-out loss of every stage, and the held-out loss of the video U-Net by timestep."""
    stages = [stage for stage in STAGES if (RUNS / stage / "stats.jsonl").exists()]
    figure, axes = plt.subplots(-(-len(stages) // 3), 3, figsize=(12, 3 * -(-len(stages) // 3)), squeeze=False)
    for axis in axes.flat[len(stages) :]:
        axis.axis("off")
    for axis, stage in zip(axes.flat, stages, strict=False):
        lines = [json.loads(line) for line in (RUNS / stage / "stats.jsonl").read_text().splitlines()]
        training = [(line["samples"], line["loss"]) for line in lines if "loss" in line]
        held_out = [(line["samples"], line["validation/loss"]) for line in lines if "validation/loss" in line]
        axis.plot(*zip(*training, strict=True), lw=1, label="training")
        axis.plot(*zip(*held_out, strict=True), "o-", lw=1, ms=3, label="held out")
        axis.set(title=stage, xlabel="samples", yscale="log")
        axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(PICTURES / "curves.png", dpi=80)


def draw_samples() -> None:
    """The clips of the README's tour, by digits-shift and by its baseline."""
    for model, picture in (("digits-shift", "tour.png"), ("digits-attention", "attention.png")):
        pipe = TextToVideoPipeline.from_pretrained(model)
        clips = list(pipe(list(TOUR), seeds=[0] * len(TOUR)).frames)
        write_contact_sheet(PICTURES / picture, clips, TOUR, columns=1, scale=1)


def main() -> None:
    """Draw everything."""
    PICTURES.mkdir(exist_ok=True)
    draw_curves()
    draw_samples()
    timeloom(["data", "view", "digits", "--output", str(PICTURES / "data.png"), "--clips", "8", "--overwrite"])
    for preview in sorted((RUNS / "autoencoder_whole/previews").glob("*.png"))[-1:]:
        shutil.copy(preview, PICTURES / "reconstructions.png")


if __name__ == "__main__":
    main()
