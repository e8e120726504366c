"""What scanning and cutting cost, beside pure decoding, PySceneDetect and FFmpeg, in CPU seconds of one run.

    python benchmarks/curate.py                       # needs ../shared/data, scenedetect-headless, the ffmpeg program
    python benchmarks/curate.py --seconds 20 --rounds 1

The source is 720p H.264 made of real clips, scaled up and joined, by x264 at its defaults. Every case runs in a process
of its own; its CPU seconds include its threads and children. Ratios are taken within a round; their median is given.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
CLIPS = PROJECT.parent / "shared" / "data" / "clips"
LONGEST = 150  # frames taken of a clip
CLIP_S = 5.0  # a usual length, for the estimate of captions


def make_source(path: Path, height: int, seconds: float) -> Path:
    """Real clips, one after the other, as one film of 30 frames a second."""
    import av
    from av.video.frame import PictureType
    from av.video.reformatter import VideoReformatter

    if path.exists():
        return path
    reformatter, count = VideoReformatter(), 0
    unfinished = path.with_suffix(".part.mp4")
    with av.open(str(unfinished), "w") as target:
        stream = target.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = height * 16 // 9, height, "yuv420p"
        for clip in sorted(CLIPS.rglob("*.mp4"))[::7]:
            if count >= 30 * seconds:
                break
            with av.open(str(clip)) as source:
                for frame, _ in zip(source.decode(video=0), range(LONGEST), strict=False):
                    large = reformatter.reformat(frame, height * 16 // 9, height, "yuv420p")
                    large.pts, large.time_base, large.pict_type = count, Fraction(1, 30), PictureType.NONE
                    target.mux(stream.encode(large))
                    count += 1
        target.mux(stream.encode())
    return unfinished.rename(path)


def decode(source: Path, folder: Path) -> dict[str, Any]:
    import av

    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        return {"frames": sum(1 for _ in container.decode(stream))}


def scan_only(source: Path, folder: Path, **options: Any) -> dict[str, Any]:
    from timeloom.curate.scan import ScanOptions, scan

    found = scan(source, ScanOptions(**options))
    cuts = [round(found.seconds(scene.start_pts) * 30) for scene in found.scenes[1:]]
    return {"frames": found.num_frames, "cuts": cuts}


def scan_adaptive(source: Path, folder: Path) -> dict[str, Any]:
    return scan_only(source, folder, detector="adaptive")


def scan_and_clips(source: Path, folder: Path) -> dict[str, Any]:
    from timeloom.curate.scan import ClipOptions, ScanOptions, scan

    sizes: list[int] = []
    found = scan(source, ScanOptions(clips=ClipOptions()), lambda _, content: sizes.append(len(content)))
    return {"frames": found.num_frames, "clips": len(sizes), "bytes": sum(sizes)}


def pyscenedetect(source: Path, folder: Path) -> dict[str, Any]:
    import scenedetect

    scenes = scenedetect.detect(str(source), scenedetect.ContentDetector())
    return {"cuts": [start.frame_num for start, _ in scenes[1:]]}


def pyscenedetect_split(source: Path, folder: Path) -> dict[str, Any]:
    import scenedetect
    from scenedetect.output import split_video_ffmpeg

    scenes = scenedetect.detect(str(source), scenedetect.ContentDetector())
    code = split_video_ffmpeg(str(source), scenes, folder)
    assert code == 0, f"ffmpeg ended with {code}"
    return {"files": len(list(folder.glob("*.mp4")))}


def _cut(source: Path, folder: Path, method: str) -> dict[str, Any]:
    from timeloom.curate.cut import CutOptions, cut
    from timeloom.curate.scan import ScanOptions, scan

    found = scan(source, ScanOptions())
    begin = time.process_time()
    wanted = [(scene, folder / f"{scene.start_pts}.mp4") for scene in found.scenes]
    cuts = list(cut(source, found, wanted, CutOptions(method=method)))
    return {
        "cutting_cpu_s": time.process_time() - begin,
        "files": len(cuts),
        "encoded_share": sum(made.encoded_frames for made in cuts) / found.num_frames,
        "bytes": sum(made.size for made in cuts),
    }


def smart_cut(source: Path, folder: Path) -> dict[str, Any]:
    return _cut(source, folder, "smart")


def encode_cut(source: Path, folder: Path) -> dict[str, Any]:
    return _cut(source, folder, "encode")


CASES: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    "decode": decode,
    "scan": scan_only,
    "scan, adaptive": scan_adaptive,
    "scan and clips at 256": scan_and_clips,
    "PySceneDetect detect": pyscenedetect,
    "PySceneDetect detect and split": pyscenedetect_split,
    "scan and smart cut": smart_cut,
    "scan and encoded cut": encode_cut,
}


def run_case(name: str, source: Path) -> dict[str, Any]:
    """A case in a process of its own."""
    command = [sys.executable, __file__, "--case", name, "--source", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(name: str, source: Path) -> dict[str, Any]:
    """CPU seconds and memory of a case in this process, imports left out."""
    import av  # noqa: F401

    import timeloom.curate.cut
    import timeloom.curate.scan  # noqa: F401

    if name.startswith("PySceneDetect"):
        import scenedetect  # noqa: F401
    with tempfile.TemporaryDirectory() as folder:
        begin = _cpu_s()
        told = CASES[name](source, Path(folder))
        return {"cpu_s": _cpu_s() - begin, "peak_mb": _peak_mb(), **told}


def _cpu_s() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _peak_mb() -> float:
    """Of this program alone: what getrusage tells begins with the memory of the process that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def summary(rounds: list[dict[str, dict[str, Any]]]) -> dict[str, float]:
    """What must be reached, as medians of the rounds' ratios."""

    def ratio(above: str, below: str, key: str = "cpu_s") -> float:
        return statistics.median(cases[above][key] / cases[below][key] for cases in rounds)

    theirs, ours = ({*rounds[0][name]["cuts"]} for name in ("PySceneDetect detect", "scan"))
    return {
        "scan rate / decode rate (at least 0.85)": ratio("decode", "scan"),
        "adaptive scan rate / decode rate": ratio("decode", "scan, adaptive"),
        "scan rate / PySceneDetect's (at least 1.25)": ratio("PySceneDetect detect", "scan"),
        "scan and virtual clips / detect and split (at least 5)": ratio("PySceneDetect detect and split", "scan"),
        "smart cut / encoded cut (at least 4)": ratio("scan and encoded cut", "scan and smart cut", "cutting_cpu_s"),
        "F1 of the cuts against PySceneDetect's (at least 0.99)": 2 * len(theirs & ours) / (len(theirs) + len(ours)),
    }


def full_size(rounds: list[dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """What 100,000 hours of such video at 30 frames a second would cost, as the command itself estimates it.

    One captioner that takes t seconds a clip keeps up with `cores_per_caption_s` / t cores; with more, captions are the
    limit. Clips of `CLIP_S` seconds.
    """
    from timeloom.curate.recipe import PriceOptions
    from timeloom.curate.statistics import Cost, Statistics

    told = {}
    for name in ("scan", "scan and clips at 256"):
        cpu_s = statistics.median(cases[name]["cpu_s"] for cases in rounds)
        length_s = rounds[0][name]["frames"] / 30
        estimate = Cost(cpu_s, length_s / 3600).estimate(Statistics(), PriceOptions())
        told[name] = {**estimate, "cores_per_caption_s": round(cpu_s / length_s * CLIP_S, 3)}
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="length of the source")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", help="one case only, in this process (used by the benchmark itself)")
    parser.add_argument("--source", type=Path, help="a film of your own")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "timeloom-curate")
    parser.add_argument("--output", type=Path, default=PROJECT / "benchmarks" / "results" / "curate.json")
    options = parser.parse_args()
    if options.case:
        print(json.dumps(measure(options.case, options.source)))
        return
    from floor import machine

    options.folder.mkdir(parents=True, exist_ok=True)
    source = options.source or make_source(options.folder / f"720p-{options.seconds:g}.mp4", 720, options.seconds)
    rounds = []
    for _ in range(options.rounds):
        rounds.append({name: run_case(name, source) for name in CASES})
        print(json.dumps({name: round(case["cpu_s"], 2) for name, case in rounds[-1].items()}), flush=True)
    large = make_source(options.folder / "1080p-10.mp4", 1080, 10)
    memory = {
        name: run_case(name, large)["peak_mb"] for name in ("scan", "scan and clips at 256", "scan and smart cut")
    }
    result = {
        "machine": machine(),
        "source": {"frames": rounds[0]["decode"]["frames"], "bytes": source.stat().st_size},
        "ratios": summary(rounds),
        "peak_mb_1080p (below 600)": memory,
        "100,000 hours": full_size(rounds),
        "rounds": rounds,
    }
    options.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key != "rounds"}, indent=1))


if __name__ == "__main__":
    main()
