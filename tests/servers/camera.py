"A camera that serves a still, and does what cameras do: it is slow, away, cut off, or shows the same again."

import http.server
import io
import threading
import time
from collections import Counter

import numpy as np
from PIL import Image

COLOURS = {'Cirrus': (40, 90, 220), 'Contrail': (220, 60, 40)}  # as the model of `service.write_model` tells them


def frame(n: int, sky: str = 'Cirrus', side: int = 64) -> bytes:
    "The bytes of a photo, another for each `n`."
    noise = np.random.default_rng(n).integers(-20, 20, (side, side, 3))
    img = Image.fromarray((np.array(COLOURS[sky]) + noise).astype(np.uint8))
    out = io.BytesIO()
    img.save(out, 'PNG')
    return out.getvalue()


class Camera:
    "`behave(n)` says what becomes of request `n`: 'new', 'same', 'slow', 'truncated', 'text', 'missing' or 'drop'."

    def __init__(self, behave):
        self.behave, self.asked, self.shown, self.n = behave, Counter(), 0, 0
        camera = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                camera.answer(self)

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.server.daemon_threads = True
        self.url = f'http://127.0.0.1:{self.server.server_port}/still.png?pwd=secret'

    def answer(self, request) -> None:
        kind = self.behave(self.n)
        self.n += 1
        self.asked[kind] += 1
        if kind == 'drop':
            request.close_connection = True
            return
        self.shown += kind in ('new', 'slow')
        content = {'text': b'<html>no still', 'missing': b''}.get(kind) or frame(self.shown)
        request.send_response(404 if kind == 'missing' else 200)
        request.send_header('Content-Length', str(len(content)))
        request.end_headers()
        if kind == 'slow':
            request.wfile.write(content[:50])
            time.sleep(2)
            content = content[50:]
        request.wfile.write(content[: len(content) // 2] if kind == 'truncated' else content)

    def __enter__(self) -> 'Camera':
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.server.shutdown()
        self.server.server_close()
