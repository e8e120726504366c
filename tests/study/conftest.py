import contextlib
import itertools
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from timeloom.data import write_video
from timeloom.study.create import Settings, create_study
from timeloom.study.design import read_study
from timeloom.study.desk import Desk
from timeloom.study.questions import PAPERS
from timeloom.study.store import Store
from timeloom.study.systems import match, read_folder

BROWSER = "0123456789abcdef01234567"
TICKS = itertools.count()  # a clock that needs no waiting
VOTE = ("task", "question", "choice", "milliseconds")
PROMPTS = ["a red seven", "a <b>blue</b> two", "two & two", "the fourth"]
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


def draw_videos(folder, prompts, seed, frames=4, size=32, fps=8):
    random = np.random.default_rng(seed)
    for index, prompt in enumerate(prompts):
        start = random.integers(0, 200, (1, 1, 1, 3))
        ramp = np.linspace(0, 50, frames)[:, None, None, None] + np.zeros((frames, size, size, 3))
        write_video(folder / f"{index:03d}.mp4", (start + ramp).astype(np.uint8), fps, {"prompt": prompt})
    return folder


def build(folder, source, names=("alpha", "beta", "gamma"), prompts=PROMPTS, **settings):
    systems = {}
    for seed, name in enumerate(names):
        if not (source / name).exists():
            draw_videos(source / name, prompts, seed)
        systems[name] = read_folder(source / name)
    matched, missing = match(systems)
    settings = Settings(**{"questions": PAPERS["latent-shift"], "attention": 1, "raters_per_pair": 2, **settings})
    return create_study(folder, names, {"alpha": 1e9, "beta": 4e9}, matched, missing, settings)


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """Three systems, four prompts, twelve pairs and one attention pair; copied by `study`, never used itself."""
    folder = tmp_path_factory.mktemp("study")
    build(folder / "study", folder)
    return folder / "study"


@pytest.fixture()
def folder(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "study"))


@pytest.fixture()
def study(folder):
    return read_study(folder)


@pytest.fixture()
def store(folder, study):
    with Store(folder, study) as store:
        yield store


@pytest.fixture()
def tokens(store):
    return [token for _, token, _ in store.do(Desk.links).result()]


def ask(store, action):
    return store.do(action).result(timeout=10)


def answer_all(store, token, choose, milliseconds=2000, browser=BROWSER):
    """Vote on everything; `choose(pair on the left, on the right, question)` says how. Returns the last state."""
    ask(store, lambda desk: setattr(desk, "clock", lambda: 3.0 * next(TICKS)))
    state = ask(store, lambda desk: desk.visit(token, browser))
    while state["tasks"]:
        task = state["tasks"][0]
        question = next(number for number in range(10) if number not in task["answered"])
        said = (task["task"], question, choose(task["left"], task["right"], question), milliseconds)
        state = ask(store, partial(Desk.vote, token=token, browser=browser, **dict(zip(VOTE, said, strict=True))))
    return state


@contextlib.contextmanager
def serving(folder, *options):
    """`timeloom study serve` in a process of its own; gives its address and the process."""
    command = [sys.executable, "-m", "timeloom", "study", "serve", str(folder), "--port", "0", *options]
    # Where the tests run in the background, Ctrl-C is ignored, and would be by their children.
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, heard)
    try:
        said = process.stdout.readline()
        address = re.search(r"http://\S+?(?=/;)", said)
        assert address, said + process.stderr.read()
        process.stdout.readline()
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield address[0], process
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def chromium():
    """A driven Chromium without a window; skips where Debian's packages are missing."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install selenium")
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs Chromium and its driver: apt-get install chromium chromium-driver")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()


def read_json(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))
