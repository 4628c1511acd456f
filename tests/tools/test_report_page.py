"""``motivation report --html``: one page that loads nothing, with inert names, and charts that a real browser draws."""

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import yaml

from motivation.tools.report import page, page_data

METRICS = {"loss": 1.0, "top1": 60.0, "top5": 90.0}
PAIR = {"model": "resnet8_cifar", "motivated_model": "resnet14_cifar"}
PLAIN = {"model": "resnet8_cifar", "motivated_model": None}
COMMON = {"dataset": "sklearn/digits", "input_size": [1, 8, 8], "num_classes": 10, "epochs": 3, "motivation_k": 2}
RESULT = {"completed": True, "share": 1 / 3, "average_flops": 4e6, "flops": {"base": 3e6, "motivated": 6e6}}
MOTIVATED = [False, False, False, True, True, False]
EPOCHS = 3


@pytest.fixture
def make_run(tmp_path):
    """``make_run(name, options, losses, result, ...)`` writes a run of three epochs; None leaves a file out."""

    def make(name="run", options=PAIR, seed=0, losses=None, result=RESULT, top1=60.0, summary=True):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "args.yaml").write_text(yaml.safe_dump({**COMMON, "seed": seed, **options}))
        pair = bool(options.get("motivated_model"))
        if losses is None:
            losses = [2.0 - 0.1 * i + 0.05 * (i % 2) for i in range(EPOCHS * len(MOTIVATED))]
        per_epoch = len(losses) // EPOCHS
        lines = [
            f"{i // per_epoch},{i % per_epoch},{'motivated' if pair and MOTIVATED[i % 6] else 'base'},{loss!r},0,0.1"
            for i, loss in enumerate(losses)
        ]
        if losses:
            (folder / "updates.csv").write_text("\n".join(["epoch,update,active,loss,streak,lr", *lines, ""]))
        columns = "epoch,train_loss,eval_loss,eval_top1,eval_top5"
        rows = [f"{e},{1 / (e + 1)},1.5,{top1 + 10 * e},{90 + e}" for e in range(EPOCHS)]
        if pair:
            columns += ",motivated_eval_loss,motivated_eval_top1,motivated_eval_top5,base_updates,motivated_updates"
            columns += ",average_flops"
            rows = [f"{row},1.6,{top1 - 5},{80 + e},4,2,4e6" for e, row in enumerate(rows)]
        if summary:
            (folder / "summary.csv").write_text("\n".join([columns, *rows, ""]))
        if result:
            of_pair = result if pair else {"completed": result["completed"]}
            (folder / "result.json").write_text(json.dumps(of_pair))
        return folder

    return make


VOID = ("meta", "img", "input", "path", "circle")


class Page(HTMLParser):
    """The elements of a page, the text of each script, and all other text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.scripts, self.text = [], [], {}, ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open and self.open[-1] == "script":
            self.scripts[self.elements[-1][1].get("type")] = text
        elif self.open and self.open[-1] != "style":
            self.text += text

    @property
    def data(self):
        return json.loads(self.scripts["application/json"])


@pytest.fixture
def report(tmp_path, command):
    """``report(*words)`` of all runs made: the page, and what was said on standard error."""

    def make(*words):
        file = tmp_path / "page.html"
        said = command("report", tmp_path / "runs", "--html", file, *words).err
        return Page(file.read_text()), said

    return make


# ---- what is on it


def test_the_page_loads_nothing_and_runs_only_its_own_script(make_run, report):
    make_run()
    found, _ = report()
    loads = [value for _, attributes in found.elements for name, value in attributes.items() if name in ("src", "href")]
    assert loads
    assert all(value.startswith(("data:", "#")) for value in loads)
    assert not {tag for tag, _ in found.elements} & {"link", "iframe", "object", "embed", "base", "form"}
    policy = next(attributes["content"] for tag, attributes in found.elements if "http-equiv" in attributes)
    digest = base64.b64encode(hashlib.sha256(found.scripts[None].encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert f"script-src 'sha256-{digest}'" in policy
    assert not re.search(r"url\(|@import|fetch\(|XMLHttp|innerHTML", page.FILES.joinpath("page.css").read_text())
    assert not re.search(r"fetch\(|XMLHttp|innerHTML|eval\(|import", page.FILES.joinpath("page.js").read_text())


def test_tables_intervals_options_and_the_map_stand_in_it_without_the_script(make_run, report):
    for seed in range(3):
        make_run(f"pair{seed}", PAIR, seed, top1=60.0 + seed)
        make_run(f"base{seed}", PLAIN, seed, top1=59.0 + 2 * seed)
        make_run(f"short{seed}", {**PAIR, "motivation_k": 3}, seed)
    found, _ = report()
    for text in ("resnet8-resnet14-B [k = 2]", "95 % interval (drawn from", "78.52 to 83.48", "Paired differences"):
        assert text in found.text
    assert found.text.count("What differs between the configurations") == 1
    assert "motivation_k" in found.text
    assert len([1 for tag, attributes in found.elements if attributes.get("class") == "interval"]) > 4
    pictures = [attributes for tag, attributes in found.elements if tag == "img"]
    assert [one["alt"] for one in pictures] == ["Where resnet8_cifar lies inside resnet14_cifar"]  # one for all runs
    svg = base64.b64decode(pictures[0]["src"].partition("base64,")[2]).decode()
    assert svg.startswith("<?xml")
    by_name = {run["name"]: run for run in found.data["runs"]}
    assert found.data["runs"][by_name["pair1"]["beside"]]["name"] == "base1"
    assert by_name["base1"]["loss"]["falls"].keys() == {"2", "3"}
    assert {(curve["role"], curve["runs"]) for curve in found.data["curves"]} == {("base", 3), ("motivated", 3)}


def test_names_and_options_of_a_stranger_are_inert(make_run, report):
    hostile = {
        "experiment": "</script><script>alert(1)</script>",
        "model": "<img src=x onerror=alert(1)>",
        "opt": '"><b>',
    }
    make_run("<img src=http:x onerror=alert(1)>\x1b[31m", {**PAIR, **hostile})
    make_run("fine", PAIR)
    make_run("large", PAIR)
    large = make_run("larger", PAIR) / "summary.csv"
    large.write_text("epoch,eval_top1\n0," + "9" * 200_000 + "\n")
    found, said = report()
    assert "not on the page" in said
    assert "larger/summary.csv is damaged" in said
    assert [tag for tag, _ in found.elements if tag in ("script", "b")] == ["script"] * 2
    assert all(attributes["src"].startswith("data:") for tag, attributes in found.elements if tag == "img")
    assert not any(name.startswith("on") for _, attributes in found.elements for name in attributes)
    assert "\x1b" not in found.text + found.scripts["application/json"]
    assert "</script><script>alert(1)</script>" in found.text
    assert "<img src=http:x onerror=alert(1)>\\x1b[31m" in [run["name"] for run in found.data["runs"]]


@pytest.mark.parametrize(
    ("change", "words", "said"),
    [
        ({"options": PLAIN}, [], "no motivated model"),
        ({"options": {"model": "resnet8_cifar"}}, [], "of timm's script"),
        ({"result": None}, ["--unfinished"], "not finished"),
        ({"result": None}, [], "No run has finished; --unfinished counts"),
        ({"result": None, "summary": False}, [], "No run has finished; --unfinished counts"),
        ({"losses": []}, [], "resnet8"),
        ({"options": {**PAIR, "eval_metric": "top5"}}, [], "top-5"),
        ({"options": {**PAIR, "motivated_model": "no_such_model"}}, [], "the map cannot be drawn: --motivated-model"),
        ({"options": {**PAIR, "motivated_model": "local-dir:/etc"}}, [], "lies outside of the run"),
        ({"options": {**PAIR, "motivation_condition": "never"}}, [], "resnet8_cifar alone"),
        ({"losses": [float("nan")] * 18}, [], "resnet8"),
        ({"losses": [1.0] * 3}, [], "resnet8"),
    ],
    ids=str,
)
def test_a_page_of_any_run_is_made(change, words, said, make_run, report):
    make_run(**change)
    found, _ = report(*words)
    assert said in found.text
    (run,) = found.data["runs"]
    assert (run["loss"] is None) == (change.get("losses") == [])
    assert bool(run["fault"]) == (run["loss"] is None)


def test_a_damaged_record_of_updates_is_said_on_the_page(make_run, report):
    with open(make_run() / "updates.csv", "a") as file:
        file.write("3,0,base,big,0,0.1\n")
    (run,) = report()[0].data["runs"]
    assert run["loss"] is None
    assert "updates.csv is damaged" in run["fault"]


# ---- its size


def test_a_long_run_is_thinned_out_to_lowest_mean_and_highest_losses(make_run, report, monkeypatch):
    monkeypatch.setattr(page, "MOST_POINTS", 100)
    losses = np.random.default_rng(0).normal(2.0, 0.1, 3000)
    losses[7] = np.nan
    make_run(losses=losses.tolist())
    (run,) = report()[0].data["runs"]
    loss = run["loss"]
    assert (loss["count"], loss["width"], len(loss["mean"]), loss["bad"]) == (3000, 30, 100, [0])
    parts = losses.reshape(100, 30)
    for name, function in (("low", np.nanmin), ("mean", np.nanmean), ("high", np.nanmax)):
        np.testing.assert_allclose(loss[name], function(parts, axis=1), rtol=1e-4)
    assert np.mean(loss["share"]) == pytest.approx(1 / 3, abs=1e-4)
    assert loss["epochs"] == [[0, 0], [1, 1000], [2, 2000]]


def test_more_epochs_than_can_be_seen_are_thinned_out(monkeypatch):
    monkeypatch.setattr(page_data, "MOST_EPOCHS", 4)
    assert page_data._thin(np.arange(10.0)) == [0, 3, 6, 9]


# ---- how it is written


def test_the_page_is_written_whole_or_not_at_all(make_run, tmp_path, command, monkeypatch):
    run, file = make_run(), tmp_path / "page.html"
    file.write_text("old")
    for place in (tmp_path / "nowhere/page.html", tmp_path):
        lines = command("report", run, "--html", place, code=2).err.splitlines()
        assert len(lines) == 1
        assert lines[0].startswith(f"error: cannot write {place}: ")
    write = Path.write_text

    def full(path, text, **options):
        write(path, text[:100], **options)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    assert "No space left" in command("report", run, "--html", file, code=2).err
    assert file.read_text() == "old"
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "page.html"}


def test_standard_output_and_devices_are_written_as_they_are(make_run, command):
    run = make_run()
    assert command("report", run, "--html", "-").out.startswith("<!doctype html>")
    assert "cannot write /dev/full: No space left" in command("report", run, "--html", "/dev/full", code=2).err
    assert Path("/dev/full").is_char_device()
    assert "two different names" in command("report", run, "--html", "-", "--csv", "-", code=2).err


def test_the_end_of_every_curve_is_on_the_axis():
    high, low = ({"y": [60.0, *[end] * 20]} for end in (99.0, 34.0))
    assert page_data.curve_limits([high])[0] > 90
    bottom, top = page_data.curve_limits([high, low])
    assert bottom < 34.0
    assert top > 99.0
    assert page_data.curve_limits([{"y": [None]}]) is None


def test_without_a_run_that_can_be_counted_only_the_page_is_made(make_run, tmp_path, command):
    run, file = make_run(result=None), tmp_path / "page.html"
    assert "--unfinished" in command("report", run, "--html", file, "--csv", "-", code=2).err
    assert not file.exists()
    assert command("report", run, "--html", file).out == f"Written: {file}\n\n"
    assert file.exists()


# ---- in a browser

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
in_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH (Debian: apt-get install chromium)")


@pytest.fixture
def browse(tmp_path):
    """``browse(file)`` opens a page in headless Chromium, 1,200 pixels wide: the document as its script has left it."""

    def run(file):
        flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
        flags += ["--window-size=1200,900", "--virtual-time-budget=5000", "--enable-logging=stderr", "--dump-dom"]
        done = subprocess.run([CHROMIUM, *flags, file.as_uri()], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]  # errors, and what the policy stops
        document = html.unescape(done.stdout)
        assert 'data-drawn="yes"' in document
        return document

    return run


def body_of(document):
    return re.split("<body[^>]*>", document, maxsplit=1)[1]


def chart_of(document, name):
    return re.search(
        rf'<div class="chart" id="{name}"[^>]*>(.*?)</div>\s*<(?:div|p|/div|/section)', document, re.DOTALL
    )[1]


@in_chromium
def test_the_script_draws_all_charts(make_run, report, browse, tmp_path):
    make_run("pair", PAIR, losses=np.geomspace(2.0, 0.001, 18).tolist())
    make_run("base", PLAIN, losses=[0.0, 2.0, 1.0] * 6)
    report()
    document = browse(tmp_path / "page.html")
    for name in (
        "curves-chart",
        "loss-chart",
        "loss-beside",
        "accuracy-chart",
        "losses-chart",
        "share-chart",
        "cost-chart",
    ):
        drawn = chart_of(document, name)
        assert '<svg viewBox="0 0 ' in drawn, name
        assert "The left and right arrow keys read values" in drawn, name
        assert drawn.count("<path") > 6, name
    losses = chart_of(document, "loss-chart")
    assert losses.count('class="motivated"') == 3
    assert losses.count('class="epoch"') == 3
    assert "motivated: 6 of 18 updates (33.3 %)" in losses
    assert "regression to the mean" in document
    assert "in base, where nobody switches" in document


USE_THE_CHART = """<script>
{
const said = [], chart = () => document.querySelector("#loss-chart > svg");
const read = () => said.push(document.querySelector("#loss-chart .readout").textContent);
function point(type, part) {
  const box = chart().getBoundingClientRect();
  const place = { clientX: box.left + part * box.width, clientY: box.top + 100, pointerId: 1 };
  chart().setPointerCapture = () => {};
  chart().dispatchEvent(new PointerEvent(type, place));
}
point("pointermove", 0.5); read();
point("pointerdown", 0.5); point("pointermove", 0.6); point("pointerup", 0.9);
chart().dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" })); read();
document.getElementById("out").click(); read();
document.getElementById("span").value = 0; document.getElementById("span").oninput();
chart().dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowLeft" })); read();
document.querySelector("#loss-chart .legend button:last-child").click();
said.push(document.querySelectorAll("#loss-chart .motivated").length);
document.body.textContent = said.join("\\n");
}
</script></body>"""


@in_chromium
def test_a_chart_is_read_by_pointer_and_keys_and_zoomed(make_run, report, browse, tmp_path):
    make_run(losses=np.linspace(3.0, 2.0, 300).tolist())
    report()
    text = re.sub("<meta http-equiv[^\n]*", "", (tmp_path / "page.html").read_text())
    (tmp_path / "copy.html").write_text(text.replace("</body>", USE_THE_CHART))
    pointed, first, zoomed_out, last, shaded = body_of(browse(tmp_path / "copy.html")).split("\n")[:5]
    assert re.match(
        r"epoch 1, update \d+ of it, 1[45]\d of the run: loss 2\.\d+, the (base|motivated model) trains", pointed
    )
    start = int(re.search(r"(\d+) of the run", first)[1])
    assert 140 < start < 160
    assert "Drag over the chart" in zoomed_out
    assert int(re.search(r"(\d+) of the run", last)[1]) < start + 20
    assert shaded.startswith("0")


@in_chromium
def test_hostile_names_stay_text_and_nothing_is_wider_than_a_phone(make_run, report, browse, tmp_path):
    make_run("<img src=x onerror=alert(1)>", {**PAIR, "experiment": "</script><script>alert(1)</script>" * 3})
    losses = np.random.default_rng(0).normal(2.0, 0.1, 3000)
    losses[100] = np.inf
    make_run("long", PAIR, losses=losses.tolist())
    report()
    # a window has at least 500 pixels, a frame may have 400; it sends its width and its document
    send = "<script>parent.postMessage([document.documentElement.scrollWidth, document.documentElement.outerHTML], '*')"
    text = re.sub("<meta http-equiv[^\n]*", "", (tmp_path / "page.html").read_text())
    (tmp_path / "copy.html").write_text(text.replace("</body>", f"{send}</script></body>"))
    receive = "<script>onmessage = (event) => { document.body.textContent = event.data.join('\\n'); }</script>"
    frame = '<iframe width="400" height="900" src="copy.html#run=1&updates=50-1500"></iframe>'
    (tmp_path / "phone.html").write_text(f"<body>{receive}{frame}</body>")
    width, document = body_of(browse(tmp_path / "phone.html")).split("\n", 1)
    assert int(width) <= 400
    losses = chart_of(document, "loss-chart")
    assert "of 1,45" in losses
    assert "not finite, at 1 place" in losses
    assert "lowest to highest loss of 5 updates" in losses
    assert "&lt;img src=x onerror=alert(1)&gt;" in document
