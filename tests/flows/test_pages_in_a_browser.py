"""What people see in MLflow and Prefect, in a real browser: Chromium of the distribution."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from blockqnn.search.history import read_search
from flows.servers.prefect_api import prefect_call

CHECKOUT = Path(__file__).parents[2]
PATIENCE = 120

pytestmark = pytest.mark.slow  # a minute and a half, and a browser


@pytest.fixture(scope="module")
def browser():
    """A browser without a window."""
    webdriver = pytest.importorskip("selenium.webdriver")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for switch in ("headless=new", "no-sandbox", "disable-gpu", "window-size=1600,1000"):
        options.add_argument(f"--{switch}")
    service = webdriver.ChromeService(executable_path=driver)
    opened = webdriver.Chrome(options=options, service=service)
    opened.implicitly_wait(PATIENCE)
    yield opened
    opened.quit()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Served:
    """A finished search that MLflow knows, and `blockqnn serve` of its runs."""

    def __init__(self, runs):
        self.runs = runs
        self.ports = [free_port(), free_port()]
        others = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI")
        mine = {name: value for name, value in os.environ.items() if name not in others}
        self.environment = mine | {"PREFECT_HOME": str(runs.parent / "home")}
        self.command("search", "--set", "batch=8", "schedule=[[1.0, 3]]", "recipe.epochs=2")
        prefect, mlflow = map(str, self.ports)
        serve = ["serve", "--runs", str(runs), "--prefect-port", prefect, "--mlflow-port", mlflow]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *serve],
            cwd=CHECKOUT,
            env=self.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.said = ""
        while "Ctrl-C" not in self.said:
            line = self.process.stdout.readline()
            assert line, f"serve ended: {self.said}"
            self.said += line

    def command(self, *arguments):
        """What a command prints."""
        return subprocess.run(
            [sys.executable, "-m", "flows.cli", *arguments, "--runs", str(self.runs)],
            cwd=CHECKOUT,
            env=self.environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def close(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with closing(Served(tmp_path_factory.mktemp("served") / "runs")) as served:
        yield served


def by_xpath(browser, path):
    return browser.find_element("xpath", path)


def test_mlflows_page_has_the_best_candidate_in_its_first_row(browser, served):
    link = re.search(r"http://\S+/#/experiments/\S+", served.command("status", "demo"))[0]
    port = served.ports[1]
    browser.get(re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{port}", link))
    first = by_xpath(browser, "//*[@role='row' and .//a[contains(., 'candidate-')]]")
    (best,) = read_search(served.runs / "demo").best(1)
    assert f"candidate-{best.candidate.number}" in first.text


def test_prefects_form_asks_for_settings_and_begins_a_run(browser, served):
    api = f"http://127.0.0.1:{served.ports[0]}/api"
    search = next(
        each for each in prefect_call(f"{api}/deployments/filter", {}) if each["name"] == "search"
    )
    ui = f"http://127.0.0.1:{served.ports[0]}/deployments/deployment/{search['id']}/run"
    browser.get(ui)
    for name in ("profile", "batch", "agent", "recipe", "tracking"):
        assert by_xpath(browser, f"//label[starts-with(., '{name}')]")
    button = by_xpath(browser, "//button[normalize-space(.) = 'Submit']")
    before = {run["id"] for run in prefect_call(f"{api}/flow_runs/filter", {})}
    browser.execute_script("arguments[0].click()", button)
    begun = []
    deadline = time.monotonic() + PATIENCE
    while not begun and time.monotonic() < deadline:
        begun = [r for r in prefect_call(f"{api}/flow_runs/filter", {}) if r["id"] not in before]
    (run,) = begun
    # as the command without options: what nobody gave is not sent
    assert run["parameters"]["profile"] == "demo"
    assert run["parameters"]["overrides"] == {}
