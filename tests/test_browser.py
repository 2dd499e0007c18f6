"""The page for people in headless Chromium: whole sessions, what a screen reader is told, and that nothing is asked for."""

import json
import time

import pytest

from browser import PROGRAMS, browser
from commands import ingest
from jobs import page
from occlusion_page import built, made
from readout import answers
from runtime import parquet

MISSING = [name for name, found in PROGRAMS.items() if found is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(MISSING), reason=f"{' and '.join(MISSING)} not found: apt-get install chromium chromium-driver"
    ),
]
UNITS, SETS = 10, 3
KEYS = "sdfjkl"


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The folder of a page, its key, and the pictures that are right, by trial."""
    rows, pictures = made(UNITS, SETS)
    folder, path_to_key, _ = built(tmp_path_factory.mktemp("a page (1)"), rows, pictures, SETS)
    return folder, path_to_key, {row["trial"]: row["max"] for row in rows}


def address(study, **asked):
    query = "&".join(f"{name}={value}" for name, value in asked.items())
    return (study[0] / "index.html").as_uri() + (f"?{query}" if query else "")


class Person:
    """Someone at the page, who uses the mouse alone or the keys alone; `given` are the choices, as the file should have them."""

    def __init__(self, tab, by_keys: bool):
        self.tab, self.by_keys, self.given = tab, by_keys, []

    def on(self, label: str, heading: str) -> None:
        """Leave a screen of text."""
        self.tab.wait(lambda: self.tab.find("h1", heading))
        if self.by_keys:
            self.tab.press("Enter")
        else:
            self.tab.click("button", label)
        self.tab.wait(lambda: not self.tab.find("h1", heading))

    def shown(self) -> list[str]:
        """The pictures on the left and on the right."""
        self.tab.wait(lambda: self.tab.find(".task.shown") and not self.tab.find("button.go"))
        sources = self.tab.run("return [...document.querySelectorAll('.side img')].map(i => i.src)")
        return [source.split("/")[-1].removesuffix(".png") for source in sources]

    def choose(self, button: int) -> None:
        left, right = self.shown()
        self.given.append((left, right, button))
        if self.by_keys:
            self.tab.press(KEYS[button])
        else:
            name = "Left" if button < 3 else "Right"
            self.tab.click(f"button[aria-label^='{name} copy, confidence {answers.BUTTONS[button][1]}']")
        self.tab.wait(lambda: self.tab.find("button.go", "Continue"))

    def leave(self) -> None:
        """From a task that is answered to what follows."""
        gone = "return window.answered === document.querySelector('.task')"
        self.tab.run("window.answered = document.querySelector('.task')")
        if self.by_keys:
            self.tab.press("Enter")
        else:
            self.tab.click("button.go", "Continue")
        self.tab.wait(lambda: not self.tab.run(gone))

    def practise(self, best: set[str], wrong: bool) -> None:
        """A pass of practice, its first trial wrong if asked for."""
        for i in range(answers.PRACTICE):
            left, _ = self.shown()
            right = (left in best) != (wrong and i == 0)
            self.choose(2 if right else 3)
            told = self.tab.run("return document.querySelector('.status').textContent")
            assert ("Wrong" if wrong and i == 0 else "Right") in told
            assert f"favours the {'left' if left in best else 'right'} picture" in told
            self.leave()


def _whole(study, tmp_path, condition, task, by_keys, size=(1280, 800)):
    """A whole session; what was chosen, the file, what the browser had to say, and the milliseconds that it took."""
    folder, _, best = study
    told = json.loads((folder / "trials.js").read_text()[len("window.TRIALS=") : -2])
    count = len(told["tasks"][condition][task]["main"])
    start = time.monotonic()
    assert count == UNITS + 3
    with browser(tmp_path, size) as tab:
        tab.go(address(study, condition=condition, task=task, participant="p-1"))
        person = Person(tab, by_keys)
        person.on("I agree", "A study")
        person.on("Continue", "The machine")
        person.on("Continue", "Your task")
        person.on("Continue", "How to answer")
        person.on("Continue", "Ready" if condition == "none" else "Practice first")
        # By keys Enter is the last button; a page without a screen goes on in the window.
        person.on("Stay", "Full screen")
        if condition != "none":
            person.practise(set(best.values()), wrong=True)
            person.on("Continue", "Once more")
            person.practise(set(best.values()), wrong=False)
            person.on("Begin", "Well done")
        for i in range(count):
            assert tab.find("p", f"Task {i + 1} of {count}")
            if i == 1:
                # The page's clock runs from here at the latest.
                person.shown()
                time.sleep(0.6)
            person.choose(i % 6)
            assert "Right." not in tab.text() and "Wrong." not in tab.text()
            fits = (
                "const e = document.scrollingElement; return [e.scrollWidth, e.scrollHeight, innerWidth, innerHeight]"
            )
            width, height, *window = tab.run(fits)
            assert width <= window[0] and height <= window[1]
            person.leave()
        tab.wait(lambda: tab.find("h1", "Anything"))
        if by_keys:
            tab.press("Tab", *"by keys", "Tab", "Enter")
        else:
            tab.run("document.querySelector('textarea').value = 'é \"𝄞\" \\\\ \\n\\ud800 end'")
            tab.click("button", "Continue")
        tab.wait(lambda: tab.find("h1", "Thank you"))
        if by_keys:
            tab.press("Enter")
        else:
            tab.click("button", "Save")
        tab.wait(lambda: tab.find("p", "Saved as"))
        downloads = tmp_path / "downloads"
        path = tab.wait(lambda: next(iter(downloads.glob("*.json")), None))
        shown = tab.run("return document.getElementById('text').value")
        log, requests = tab.log(), tab.requests()
        took = (time.monotonic() - start) * 1000
        # It is known who has taken part.
        tab.go(address(study))
        tab.wait(lambda: tab.find("h1", "You have taken part"))
        tab.click("button", "I am somebody else")
        tab.wait(lambda: tab.find("h1", "A study"))
    return person.given, path, shown, log, requests, took


@pytest.mark.parametrize(
    ("condition", "task", "by_keys", "size"),
    [
        ("natural", 7, False, (1280, 800)),
        ("mixed", 2, True, (940, 600)),
        ("none", 4, False, (940, 600)),
    ],
)
def test_a_whole_session(study, tmp_path, condition, task, by_keys, size):
    """By clicks and by keys: no word on the console, nothing from elsewhere, and the file goes through ingest unchanged."""
    folder, path_to_key, best = study
    given, path, shown, log, requests, took = _whole(study, tmp_path, condition, task, by_keys, size)
    assert log == []
    assert len(requests) > 4 * UNITS
    assert [asked for asked in requests if not asked.startswith((folder.as_uri(), "blob:null/"))] == []

    text = path.read_text(encoding="utf-8")
    assert text == shown
    session = answers.parse(text)
    assert answers.export(session) == text
    assert path.name == f"occlusion-planted-{session.session}.json"
    assert (session.condition, session.task, session.participant) == (condition, task, "p-1")
    assert session.window == size
    assert [(a.left, a.right, a.button) for a in session.answers] == given
    assert session.comment == ("by keys" if by_keys else 'é "𝄞" \\ \n end')
    assert session.practice_passes == (0 if condition == "none" else 2)
    assert session.tested[1].milliseconds >= 600
    assert all(a.milliseconds > 0 for a in session.answers)
    inside = sum(a.milliseconds for a in session.answers) + session.instruction_milliseconds
    assert 0 < session.instruction_milliseconds < inside < session.milliseconds < took

    told, refused = ingest.ingest(tmp_path / "results", [path], path_to_key)
    assert refused == [] and "1 sessions, 0 of them pass" in told
    responses = parquet.read(tmp_path / "results" / "page" / "responses.parquet").to_pylist()
    assert [(r["side"], r["confidence"]) for r in responses] == [answers.BUTTONS[button] for _, _, button in given]
    assert [r["trial"] for r in responses] == [a.trial for a in session.answers]
    assert [r["correct"] for r in responses] == [float(a.chosen == best[a.trial]) for a in session.answers]
    (row,) = parquet.read(tmp_path / "results" / "page" / "sessions.parquet").to_pylist()
    # Nobody reads this fast.
    assert any("before the first trial" in reason for reason in row["reasons"])


def test_what_a_screen_reader_is_told(study, tmp_path):
    """Names of all buttons and pictures, the same in every task; the focus is on the question, then on Continue."""
    with browser(tmp_path) as tab:
        tab.go(address(study, condition="blur", task=0))
        person = Person(tab, by_keys=True)
        drawn = []
        for heading in ("A study", "The machine", "Your task", "How to answer", "Practice first", "Full screen"):
            tab.wait(lambda heading=heading: tab.find("h1", heading))
            assert tab.run("return document.activeElement.tagName") == "H1"
            drawn += [name for role, name in tab.accessible() if role == "image"]
            person.on("", heading)
        # The made example: three favourites, a picture and its two copies, six buttons.
        assert len(drawn) == 7 and all(drawn)
        seen = []
        for _ in range(2):
            person.shown()
            assert tab.run("return document.activeElement.tagName") == "H1"
            told = tab.accessible()
            seen.append(
                [(role, name) for role, name in told if role in ("image", "button", "heading", "progressbar", "group")]
            )
            person.choose(1)
            tab.wait(lambda: tab.run("return document.activeElement.textContent") == "Continue")
            assert tab.run("return [...document.querySelectorAll('[aria-pressed=true]')].map(e => e.ariaLabel)") == [
                "Left copy, confidence 2 of 3, fairly sure"
            ]
            # A choice is final.
            tab.press("l")
            assert tab.run("return document.querySelectorAll('.frame.chosen').length") == 1
            person.leave()
        assert seen[0] == seen[1]
        names = [name for role, name in seen[0] if role == "button"]
        sure = {3: "sure", 2: "fairly sure", 1: "a guess"}
        assert names == [f"{side.title()} copy, confidence {c} of 3, {sure[c]}" for side, c in answers.BUTTONS]
        pictures = [name for role, name in seen[0] if role == "image"]
        assert sorted(pictures) == [
            *(f"Favourite picture {i} of 9" for i in range(1, 10)),
            "Left copy, with a square covered",
            "Right copy, with a square covered",
            "The whole picture, nothing covered",
        ]
        assert ("progressbar", "Progress") in seen[0]


def test_the_policy_is_in_force(study, tmp_path):
    """Neither code nor pictures from elsewhere, nor what is written into the page; the console then says so."""
    with browser(tmp_path) as tab:
        tab.go(address(study))
        tab.wait(lambda: tab.find("h1", "A study"))
        assert tab.log() == []
        tab.requests()
        tab.run(
            "const image = document.createElement('img'); image.src = 'http://127.0.0.1:9/x.png'; document.body.append(image);"
            "const code = document.createElement('script'); code.textContent = 'window.foreign = 1'; document.body.append(code);"
            "fetch('index.html').catch(() => {})"
        )
        log = tab.wait(lambda: (lambda said: said if len(said) >= 3 else None)(tab.log()))
        assert sum("Content Security Policy" in line for line in log) >= 3
        assert tab.run("return window.foreign ?? null") is None
        # That what is asked for is seen here is why the other tests can say that nothing is.
        asked, blocked = {}, set()

        def refused() -> bool:
            """Whether the browser has reported so far that the picture from elsewhere was asked for and refused."""
            for event in tab.events():
                given = event["params"]
                if event["method"] == "Network.requestWillBeSent":
                    asked[given["request"]["url"]] = given["requestId"]
                elif event["method"] == "Network.loadingFailed" and given.get("blockedReason") == "csp":
                    blocked.add(given["requestId"])
            return asked.get("http://127.0.0.1:9/x.png") in blocked

        tab.wait(refused)


def test_who_answers_what(study, tmp_path):
    """By the address, else by chance, and kept when the page is opened again; what is not there is refused in words."""
    with browser(tmp_path) as tab:
        kept = "return JSON.parse(Object.values(localStorage)[0])"
        for asked, says in (
            ({"condition": "blurred"}, 'the condition "blurred"; there are none, natural, synthetic, mixed, blur'),
            ({"condition": "blur", "task": 10}, 'task "10"; tasks are 0 to 9'),
            ({"condition": "blur", "task": "x"}, 'task "x"'),
            ({"participant": "a%20b"}, "letters, digits"),
        ):
            tab.go(address(study, **asked))
            tab.wait(lambda: tab.find("h1", "cannot start"))
            assert says in tab.text()
            assert not tab.find("button")
        tab.go(address(study))
        tab.wait(lambda: tab.find("h1", "A study"))
        first = tab.run(kept)
        assert (
            first["condition"] in answers.CONDITIONS and first["task"] in range(10) and len(first["participant"]) == 16
        )
        tab.go(address(study))
        tab.wait(lambda: tab.find("h1", "A study"))
        assert tab.run(kept) == first
        drawn = set()
        for i in range(12):
            tab.go(address(study, participant=f"p{i}"))
            tab.wait(lambda: tab.find("h1", "A study"))
            now = tab.run(kept)
            assert now["participant"] == f"p{i}"
            drawn.add((now["condition"], now["task"]))
        # Twelve draws of 75 are all the same with a probability that nobody will see.
        assert len(drawn) > 1


def test_a_picture_that_is_missing(tmp_path):
    """It is said, and nothing can be chosen."""
    rows, pictures = made(UNITS, SETS, conditions=("none",))
    folder, path_to_key, _ = built(tmp_path, rows, pictures, SETS)
    _, _, by_task = page.plans(path_to_key)
    first = by_task["none", 0][1][0]
    (folder / "img" / f"{first['left']}.png").unlink()
    with browser(tmp_path) as tab:
        tab.go(address((folder,), condition="none", task=0))
        person = Person(tab, by_keys=False)
        person.on("I agree", "A study")
        for heading in ("The machine", "Your task", "How to answer", "Ready"):
            person.on("Continue", heading)
        person.on("Stay", "Full screen")
        tab.wait(lambda: tab.find("p", "A picture is missing"))
        tab.press("s")
        assert tab.run("return document.querySelectorAll('.frame.chosen').length") == 0
