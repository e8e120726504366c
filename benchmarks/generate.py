"""What one `timeloom generate` costs a user: seconds of sampling and decoding, of the whole process, and peak memory.

    python benchmarks/generate.py --repeats 3

Side by side in the same run: the same prompt through diffusers' own 2D U-Net, frame by frame, which is the floor for a
video model on this network (no frame sees another).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROMPT = "a red seven moves left"


def run_command(model: str) -> dict[str, float]:
    """One fresh process, as a user starts it."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "timeloom", "generate", PROMPT, "--model", model, "--json"]
        started = time.perf_counter()
        done = subprocess.run([*command, "--output", f"{folder}/seven.mp4"], check=True, capture_output=True, text=True)
        process_s = time.perf_counter() - started
    result = json.loads(done.stdout)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    return {"process_s": process_s, "peak_gib": peak, "sampling_s": result["sampling_s"]}


def run_image_network(model: str) -> float:
    """Seconds of the same denoising steps with diffusers' U-Net on 16 separate frames."""
    import torch
    from diffusers import UNet2DConditionModel

    from timeloom import TextToVideoPipeline
    from timeloom.zoo import resolve

    pipe = TextToVideoPipeline.from_pretrained(model)
    unet = UNet2DConditionModel.from_pretrained(resolve(model) / "unet", torch_dtype=torch.float32).eval()
    frames = 2 * pipe.config.num_frames  # with and without the prompt, for guidance
    latents = torch.randn(frames, 4, *([unet.config.sample_size] * 2))
    text = pipe.encode_text([PROMPT]).expand(frames, -1, -1)
    with torch.no_grad():
        unet(latents, 500, text)
        started = time.perf_counter()
        for _ in range(pipe.config.num_inference_steps):
            unet(latents, 500, text)
    return time.perf_counter() - started


def main() -> None:
    """Measure, print and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="digits-shift")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    runs = [run_command(options.model) for _ in range(options.repeats)]
    result = {name: round(statistics.median(run[name] for run in runs), 3) for name in runs[0]}
    result["image_network_steps_s"] = round(run_image_network(options.model), 3)
    result |= {"model": options.model, "cores": os.cpu_count(), "machine": platform.machine()}
    print(json.dumps(result, indent=2))
    results = Path(__file__).parent / "results"
    results.mkdir(exist_ok=True)
    (results / "generate.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
