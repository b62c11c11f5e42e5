"""The account that stand-ins change: what is there, by type and id, in one JSON file that several processes share.

usage: account.py FILE push IMAGE...      images are in the registries
       account.py FILE enable API...      Google's APIs were enabled by hand, an hour ago
       account.py FILE agent NAME...      Google's own service accounts are there
       account.py FILE later              a year has passed: vendors have upgraded what they upgrade by themselves
       account.py FILE leave GROUP NAME   a resource that Terraform does not know is in an Azure resource group
       account.py FILE list               prints what is there and which names are kept, one a line
"""

import contextlib
import fcntl
import json
import os
import sys
import threading

EMPTY = {
    # Seconds that have passed here; `time_sleep` lets them pass.
    "clock": 0,
    "serial": 0,
    "later": False,
    # Key to {type, state, born, run, config}.
    "objects": {},
    # Names that are not free although nothing has them, and why.
    "kept": {},
    "images": [],
    # Name to the second at which it was enabled.
    "apis": {},
    "agents": [],
    "strangers": [],
}


class Account:
    def __init__(self, path=None):
        self.path = path
        self.alone = threading.RLock()
        self.data = None if path else json.loads(json.dumps(EMPTY))

    @contextlib.contextmanager
    def opened(self):
        """The content, written back when nothing was raised; one process at a time."""
        with self.alone:
            if not self.path:
                yield self.data
                return
            with open(f"{self.path}.lock", "a", encoding="utf-8") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                data = {**json.loads(json.dumps(EMPTY)), **self.written()}
                yield data
                # Replaced in one step: Terraform kills its providers when it is interrupted.
                with open(f"{self.path}.new", "w", encoding="utf-8") as file:
                    json.dump(data, file)
                os.replace(f"{self.path}.new", self.path)

    def written(self):
        try:
            with open(self.path, encoding="utf-8") as file:
                return json.loads(file.read() or "{}")
        except FileNotFoundError:
            return {}


def main(path, verb, *arguments):
    with Account(path).opened() as data:
        if verb == "push":
            data["images"] += arguments
        elif verb == "enable":
            data["clock"] += 3600
            data["apis"] |= {f"{api}.googleapis.com": data["clock"] - 3600 for api in arguments}
        elif verb == "agent":
            data["agents"] += arguments
        elif verb == "later":
            data["later"] = True
            data["clock"] += 365 * 86400
        elif verb == "leave":
            data["strangers"].append(list(arguments))
        elif verb == "list":
            found = [f"{key}" for key, made in data["objects"].items() if made["type"] != "time_sleep"]
            found += [f"{' '.join(stranger)} in a resource group" for stranger in data["strangers"]]
            print("\n".join(sorted(found + [f"kept: {name}: {why}" for name, why in data["kept"].items()])))
        else:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(*sys.argv[1:])
