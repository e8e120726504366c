"""Stand-ins for what makes clips, a served page, and a browser."""

import re
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass, field

import numpy as np
import pytest

from timeloom.data import write_video
from timeloom.studio.jobs import Clip, Worker
from timeloom.studio.request import ClipRequest, Limits
from timeloom.studio.session import Sessions

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


@dataclass
class SlowEngine:
    """Makes clips of noise; each step waits for the test to allow it."""

    steps: int = 3
    error: Exception | None = None
    allowed: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    made: list[ClipRequest] = field(default_factory=list)

    def prepare(self, model):
        pass

    def allow(self, steps=1000):
        self.allowed.release(steps)

    def make(self, request, folder, token, on_step):
        for step in range(self.steps):
            assert self.allowed.acquire(timeout=30)
            on_step(step + 1, self.steps, lambda: np.full((8, 8, 3), 99, np.uint8))
        if self.error is not None:
            raise self.error
        self.made.append(request)
        write_video(folder / f"{token}.mp4", np.zeros((2, 16, 16, 3), np.uint8))
        return Clip(folder / f"{token}.mp4", {"seed": str(request.seed)}, 16, 16, 0.5)


@pytest.fixture()
def engine():
    return SlowEngine()


@pytest.fixture()
def worker(engine):
    worker = Worker(engine, max_waiting=5)
    yield worker
    engine.allow()
    worker.close()


@pytest.fixture()
def sessions(worker):
    sessions = Sessions(worker, Limits(max_per_minute=8))
    yield sessions
    sessions.close()


@pytest.fixture()
def wait_for():
    """Waits until something is true, with a bound on how long."""

    def wait(condition):
        done = threading.Event()
        for _ in range(3000):
            if condition():
                return
            done.wait(0.01)
        raise AssertionError("it did not come about in 30 s")

    return wait


@pytest.fixture(scope="session")
def serve():
    """Starts `timeloom studio` with the words given, and returns its address."""
    running = []

    def start(*words):
        command = [sys.executable, "-m", "timeloom", "studio", "--port", "0", "--device", "cpu", *map(str, words)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        running.append(process)
        said = process.stdout.readline()
        found = re.search(r"http://\S+", said)
        assert found, said
        return found[0]

    yield start
    for process in running:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="session")
def chromium():
    """A driven Chromium without a window; skips where Debian's packages are missing."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install selenium")
    pytest.importorskip("gradio", reason="needs gradio: pip install 'timeloom[studio]'")
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs Chromium and its driver: apt-get install chromium chromium-driver")
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()
