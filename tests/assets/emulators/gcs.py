"""gcp-storage-emulator on 127.0.0.1:PORT with one bucket. Its links to itself come from the Host header, which Google's crate
sends without a port, so they are set right; and it serves more than one at a time."""

import sys
import threading

from gcp_storage_emulator import server

BASE = f"http://127.0.0.1:{sys.argv[1]}"
made = server.Request.__init__


def corrected(self, request_handler, method):
    made(self, request_handler, method)
    self._base_url = BASE
    self._full_url = BASE + self._path
    self._parsed_url = server.urlparse(self._full_url)
    self._query = server.parse_qs(self._parsed_url.query)


server.Request.__init__ = corrected
server.server.HTTPServer = server.server.ThreadingHTTPServer
server.create_server("127.0.0.1", int(sys.argv[1]), in_memory=True, default_bucket="recordings").start()
threading.Event().wait()
