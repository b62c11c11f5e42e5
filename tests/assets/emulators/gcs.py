"""gcp-storage-emulator on 127.0.0.1:PORT with one bucket: PUT of its XML API, everything of its JSON API. It serves more than one
at a time."""

import sys
import threading

from gcp_storage_emulator import server

server.server.HTTPServer = server.server.ThreadingHTTPServer
server.create_server("127.0.0.1", int(sys.argv[1]), in_memory=True, default_bucket="recordings").start()
threading.Event().wait()
