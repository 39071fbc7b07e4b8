#!/usr/bin/env python3
"""Compiles WGSL files with Tint, the compiler inside Chromium, in one run of the headless browser.

tint.py FILE.wgsl... prints "NAME: line 3:9: message" for the first complaint about each file and
nothing for a good one. A pipeline is made too, because only then are the limits checked that every
WebGPU device keeps (8 storage buffers, 256 threads, 16 KiB of shared memory). The page posts its
verdict: what --dump-dom prints may come before the compiler has finished. A browser without WebGPU
says so and fails: no verdict is no success.
"""
import contextlib
import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

SECONDS = 180  # for the whole run; a good one takes a few

PAGE = """<!doctype html><meta charset=utf-8><script type=module>
const said = {};
async function check(device, code) {
    device.pushErrorScope('validation');
    const module = device.createShaderModule({ code });
    const { messages } = await module.getCompilationInfo();
    const at = m => `line ${m.lineNum}:${m.linePos}: ${m.type}: ${m.message}`;
    if (messages.length) return at(messages[0]);
    await device.createComputePipelineAsync({ layout: 'auto', compute: { module } });
    const error = await device.popErrorScope();
    if (error) return error.message;
}
try {
    const adapter = await navigator.gpu?.requestAdapter();
    if (!adapter) throw 'no WebGPU adapter';
    const device = await adapter.requestDevice();
    for (const [name, code] of Object.entries(await (await fetch('texts')).json()))
        try { said[name] = await check(device, code) ?? ''; } catch (e) { said[name] = `${e}`; }
} catch (e) { said[''] = `${e}`; }
await fetch('verdict', { method: 'POST', body: JSON.stringify(said) });
</script>"""

FLAGS = ("--headless --no-sandbox --disable-quic --no-first-run --disable-background-networking "
         "--disable-component-update --disable-sync --enable-unsafe-webgpu "
         "--use-webgpu-adapter=swiftshader").split()


class Server(http.server.HTTPServer):
    verdict = None
    texts = {}


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, kind, body):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body.encode())

    def do_GET(self):
        if self.path == "/texts":
            self.answer("application/json", json.dumps(self.server.texts))
        else:
            self.answer("text/html", PAGE)

    def do_POST(self):
        self.server.verdict = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer("text/plain", "")

    def log_message(self, *_):
        pass


def ask(browser, texts):
    """What the browser says of each text; None when it ends or stays silent."""
    folder = tempfile.mkdtemp(prefix="tint-")
    with Server(("127.0.0.1", 0), Handler) as server:
        server.texts = texts
        page = f"http://127.0.0.1:{server.server_port}/"
        child = subprocess.Popen([browser, *FLAGS, f"--user-data-dir={folder}", page],
                                 stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                 stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            server.timeout = 1
            until = time.monotonic() + SECONDS
            while server.verdict is None and child.poll() is None and time.monotonic() < until:
                server.handle_request()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            shutil.rmtree(folder, ignore_errors=True)
        return server.verdict


def main():
    texts = {}
    for path in sys.argv[1:]:
        with open(path, encoding="utf-8") as file:
            texts[os.path.basename(path).removesuffix(".wgsl")] = file.read()
    said = ask(os.environ.get("CHROMIUM", "chromium"), texts)
    if said is None:
        said = {"": f"the browser gave no verdict in {SECONDS} s, or ended"}
    elif "" not in said and not said.keys() >= texts.keys():
        said[""] = "the browser left texts out"
    for name, text in said.items():
        if text:
            print(f"{name}: {' '.join(text.split())}".removeprefix(": "))


main()
