"A host of static files on loopback, as simple as hosts are: it serves a folder below a path, and can be gone."

import http.server
import threading
from functools import partial

from cloud_classifier.prediction.site import ORT_FILES


def stand_in_ort(folder):
    "A folder that stands in for onnxruntime-web."
    folder.mkdir()
    for name in ORT_FILES:
        (folder / name).write_text(f'a stand-in for {name}')
    return folder


class Handler(http.server.SimpleHTTPRequestHandler):
    below = '/some/where'
    extensions_map = http.server.SimpleHTTPRequestHandler.extensions_map | {
        '.mjs': 'text/javascript',
        '.wasm': 'application/wasm',
        '.webmanifest': 'application/manifest+json',
    }

    def translate_path(self, path):
        if not path.startswith(self.below + '/'):
            return super().translate_path('/nothing/here')
        return super().translate_path(path.removeprefix(self.below))

    def log_message(self, *args):
        pass


class Host:
    "`address` is where the folder's page is; `stop` takes the host away, `start` brings it back on the same port."

    def __init__(self, folder):
        self.folder, self.port = folder, 0
        self.start()

    def start(self):
        handler = partial(Handler, directory=str(self.folder))
        self.server = http.server.ThreadingHTTPServer(('127.0.0.1', self.port), handler)
        self.server.daemon_threads = True
        self.port = self.server.server_port
        self.address = f'http://127.0.0.1:{self.port}{Handler.below}/'
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
