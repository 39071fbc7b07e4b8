"""The live page in a real browser: Chromium driven over WebDriver, by the standard library alone. A
network trains with --serve while the page is open; then somebody draws on it. Screenshots and the
printed page are left in BUILD/tests/browser, to be looked at."""
import base64, json, os, re, shutil, signal, subprocess, sys, time, urllib.error, urllib.request

BUILD = os.environ.get("BUILD", "build")
FOLDER = f"{BUILD}/tests/browser"
SECONDS = 120  # for anything that is waited for


# Pen strokes in parts of the canvas.
THREE = [[(.3, .2), (.45, .14), (.6, .18), (.66, .3), (.58, .42), (.45, .47), (.6, .52), (.69, .65),
          (.62, .8), (.45, .86), (.28, .8)]]
SEVEN = [[(.25, .2), (.45, .19), (.72, .2), (.62, .4), (.5, .62), (.42, .85)]]


def wait_for(what, probe):
    """The first true value of `probe`."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        value = probe()
        if value:
            return value
        time.sleep(.05)
    raise AssertionError(f"{what}: not within {SECONDS} s")


class Browser:
    def __init__(self):
        self.log = open(f"{FOLDER}/chromedriver.log", "w+")
        self.driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=self.log, stderr=self.log)
        port = wait_for("chromedriver starts", self.driver_port)
        self.root, self.session = f"http://127.0.0.1:{port}", ""
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,900",
                 "--disable-background-networking", "--hide-scrollbars", "--disable-component-update", "--no-first-run"]
        wanted = {"browserName": "chrome", "goog:loggingPrefs": {"browser": "ALL"},
                  "goog:chromeOptions": {"args": flags}}
        answer = self.post("/session", {"capabilities": {"alwaysMatch": wanted}})
        self.session = f"/session/{answer['sessionId']}"

    def driver_port(self):
        assert self.driver.poll() is None, "chromedriver ends at once"
        self.log.seek(0)
        found = re.search(r"started successfully on port (\d+)", self.log.read())
        return found and found[1]

    def request(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.root + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as reply:
                return json.load(reply)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"WebDriver {path}: {json.load(error)['value']['message'][:300]}") from None

    def post(self, path, body):
        return self.request("POST", self.session + path if self.session else path, body)

    def open(self, url):
        self.post("/url", {"url": url})

    def run(self, script, *args):
        return self.post("/execute/sync", {"script": script, "args": list(args)})

    def tools(self, command, **parameters):  # of the browser's developers
        return self.post("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def text(self, selector):
        return self.run("return document.querySelector(arguments[0])?.textContent ?? ''", selector)

    def keys(self, *names):
        steps = [{"type": kind, "value": name} for name in names for kind in ("keyDown", "keyUp")]
        self.post("/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": steps}]})

    def stroke(self, selector, strokes):
        element = self.post("/element", {"using": "css selector", "value": selector})
        size = self.run("return arguments[0].clientWidth", element)
        for stroke in strokes:
            places = [{"type": "pointerMove", "duration": 30, "origin": element,
                       "x": round((x - .5) * size), "y": round((y - .5) * size)} for x, y in stroke]
            steps = [places[0], {"type": "pointerDown", "button": 0}, *places[1:], {"type": "pointerUp", "button": 0}]
            self.post("/actions", {"actions": [{"type": "pointer", "id": "pen", "actions": steps}]})

    def complaints(self):
        return [entry["message"] for entry in self.post("/se/log", {"type": "browser"})
                if entry["level"] in ("SEVERE", "WARNING")]

    def picture(self, name):
        data = self.tools("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        with open(f"{FOLDER}/{name}.png", "wb") as file:
            file.write(base64.b64decode(data))

    def close(self):
        if self.session:
            self.request("DELETE", self.session)
        self.driver.terminate()
        self.driver.wait()


class Bantam:
    """The command, with what it says on stderr kept in a file."""

    def __init__(self, name, *words):
        self.said = open(f"{FOLDER}/{name}.log", "w+")
        self.process = subprocess.Popen([f"{BUILD}/bantam", *words], stdout=self.said, stderr=self.said)

    def heard(self, pattern):
        def look():
            self.said.seek(0)
            text = self.said.read()
            found = re.search(pattern, text)
            assert found or self.process.poll() is None, f"bantam ended: {text[-300:]}"
            return found
        return wait_for(f"bantam says {pattern}", look)

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(SECONDS)


# ---- Checks, in this order --------------------------------------------------------------------

# Of the lines alone: marks on single points go away once there are many.
POINTS = """return [...document.querySelectorAll('#panel-loss svg path.line')]
    .map(e => e.getAttribute('d').split(/[ML]/).length - 1).reduce((a, b) => a + b, 0)"""


def curves_grow(page, bantam, url):
    """...without the page being loaded again."""
    page.open(url)
    page.run("window.same = true")
    wait_for("the page is live", lambda: page.text("#link-state") == "connected")
    seen = []

    def look():
        epochs = page.run("return document.querySelectorAll('#panel-loss svg title').length")
        seen.append((page.run(POINTS), epochs))
        return len({points for points, _ in seen}) >= 4
    page.picture("training")
    wait_for("the loss curve has grown 3 times", look)
    grown = [points for points, _ in seen]
    assert grown == sorted(grown), f"the curve lost points: {grown}"
    assert page.run("return window.same === true"), "the page was loaded again"


def ends_live(page, bantam, url):
    """The end of the training shows, with the confusion matrix of the network."""
    bantam.heard("the page stays at")
    wait_for("the confusion matrix", lambda: page.run("return document.querySelector('#panel-confusion svg') !== null"))
    wait_for("the run is done", lambda: "done" in page.text("#panel-summary"))


def every_panel(page, bantam, url):
    links = page.run("return [...document.querySelectorAll('nav a')].map(a => a.hash.slice(1))")
    bare = page.run("""return arguments[0].filter(id => {
        const panel = document.getElementById(id);
        return !(panel?.querySelector('h2') && panel.children.length > 1); })""", links)
    assert len(links) >= 12 and not bare, f"of {links}, these are missing or empty: {bare}"
    svgs = page.run("return document.querySelectorAll('section svg').length")
    assert svgs >= 6, f"{svgs} charts"


def answer(page):
    return page.text("#draw-said")


def draws(page, strokes, digit):
    page.run("document.getElementById('draw-clear').click()")
    wait_for("the canvas is cleared", lambda: answer(page) == "")
    page.stroke("#draw-canvas", strokes)
    wait_for("an answer", lambda: f"reads a {digit}," in answer(page) or None)
    wait_for("bars, the network's view, and filters",
             lambda: page.run("return document.querySelectorAll('#draw-result svg').length >= 3"))


def draws_a_three(page, bantam, url):
    draws(page, THREE, 3)
    page.picture("three")
    draws(page, SEVEN, 7)


def draws_by_keyboard(page, bantam, url):
    page.run("document.getElementById('draw-clear').focus()")
    page.keys(" ")
    wait_for("the canvas is cleared", lambda: answer(page) == "")
    page.run("document.getElementById('draw-canvas').focus()")
    up, down = "\ue013", "\ue015"
    page.keys(*[up] * 9, " ", *[down] * 18, " ")
    wait_for("a 1", lambda: "reads a 1," in answer(page))
    page.picture("keyboard")
    page.keys("\ue017")  # Delete
    wait_for("the canvas is cleared", lambda: page.run("return document.getElementById('draw-result').innerHTML === ''"))


def tab_reaches_everything(page, bantam, url):
    count = page.run("""window.wanted = [...document.querySelectorAll('a[href], button, summary, canvas, [tabindex]')]
        .filter(e => e.checkVisibility() && e.tabIndex >= 0);
        document.activeElement.blur(); window.getSelection().removeAllRanges();
        window.reached = new Set(); return window.wanted.length""")
    for _ in range(count + 4):
        page.keys("\ue004")
        page.run("window.reached.add(document.activeElement)")
    missed = page.run("return window.wanted.filter(e => !window.reached.has(e)).map(e => e.outerHTML.slice(0, 80))")
    assert count > 10 and not missed, f"Tab does not come to {missed} (of {count})"


def fits_and_prints(page, bantam, url):
    for width, scheme in ((1280, "light"), (1280, "dark"), (400, "light")):
        page.tools("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        page.tools("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        page.picture(f"{scheme}-{width}")
        wide = page.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0, f"at {width} pixels the page is {wide} too wide"
    page.tools("Emulation.clearDeviceMetricsOverride")
    page.tools("Emulation.setEmulatedMedia", media="print", features=[])
    shown = page.run("return [...document.querySelectorAll('.live, nav')].filter(e => e.checkVisibility()).length")
    page.tools("Emulation.setEmulatedMedia", media="", features=[])
    assert shown == 0, f"{shown} things are printed that only a screen needs"
    pdf = base64.b64decode(page.tools("Page.printToPDF", printBackground=False, paperWidth=8.27, paperHeight=11.69)["data"])
    with open(f"{FOLDER}/print.pdf", "wb") as file:
        file.write(pdf)
    pages = len(re.findall(rb"/Type\s*/Page\b", pdf))
    assert pdf.startswith(b"%PDF") and 2 <= pages <= 12, f"{pages} printed pages"


def no_complaint(page, bantam, url):
    said = page.complaints()
    assert not said, f"the browser's console: {said[:3]}"


def comes_back(page, bantam, url):
    """The server goes, which the page says, and comes again, which it finds by itself."""
    port = url.rstrip("/").rsplit(":", 1)[1]
    code = bantam.stop()
    assert code == 0, f"train --serve ends with {code}"
    wait_for("the page says so", lambda: "no connection" in page.text("#link-state"))
    second = Bantam("resume", "train", "--resume", f"{FOLDER}/run", "--epochs", "9", "--serve", "--port", port)
    try:
        wait_for("the page is live again", lambda: page.text("#link-state") == "connected")
        second.heard("the page stays at")
        wait_for("the new epoch", lambda: "9 epochs" in page.text("#panel-summary"))
        assert page.run("return window.same === true"), "the page was loaded again"
    finally:
        code = second.stop()
    assert code == 0, f"serve ends with {code}"


CHECKS = [curves_grow, ends_live, every_panel, draws_a_three, draws_by_keyboard, tab_reaches_everything, fits_and_prints,
          no_complaint, comes_back]


def absent():
    """Why there is nothing to test; None: there is."""
    if not all(map(shutil.which, ("chromium", "chromedriver"))):
        return "no chromium and chromedriver here (Debian: chromium-driver)"
    with open(f"{BUILD}/config.mk") as file:
        if "HAVE_MICROHTTPD := 1" not in file.read():
            return "this build has no live page (it needs libmicrohttpd-dev)"
    return None


def main():
    shutil.rmtree(FOLDER, ignore_errors=True)
    os.makedirs(FOLDER)
    print(f"1..{len(CHECKS)}", flush=True)
    why = absent()
    if why:
        for number, check in enumerate(CHECKS, 1):
            print(f"# skipped: {why}\nnot ok {number} # SKIP {check.__name__}")
        return 0
    failed, page = 0, None
    bantam = Bantam("train", "train", "lenet", "digits", "--limit", "9000", "--epochs", "8", "--serve", "--port", "0",
                    "--out", f"{FOLDER}/run")
    try:
        page = Browser()
        url = bantam.heard(r"live page: (\S+)")[1]
        for number, check in enumerate(CHECKS, 1):
            try:
                check(page, bantam, url)
                print(f"ok {number} - {check.__name__}", flush=True)
            except (AssertionError, OSError) as error:
                failed += 1
                print(f"ERROR: {error}\nnot ok {number} - {check.__name__}", flush=True)
    finally:
        if page:
            page.close()
        if bantam.process.poll() is None:
            bantam.process.kill()
    return failed


sys.exit(main())
