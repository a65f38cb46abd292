"""What the Python programs share: settings, the way to say that a connection is gone, and the main loop."""

import os
import random
import socket
import sys
import threading
import time
import traceback


ENOUGH = threading.Event()


def setting(name):
    """A whole number from the environment."""
    return int(os.environ[name])


def dsn(port=None):
    """The server; everything but its port comes from libpq's own variables."""
    return f"host=127.0.0.1 port={port or os.environ['PGPORT']}"


def leaked(port):
    """Tells the test that a connection is gone; its port is 0 where it is not known."""
    print(f"leak {time.time_ns() // 1_000_000} {port}", flush=True)


def jitter(milliseconds):
    """Sleeps, varied by a third to either side."""
    time.sleep(milliseconds / 1000 * random.uniform(0.67, 1.33))


def every(milliseconds, do):
    """Does something for ever, with pauses."""
    while True:
        try:
            do()
        except Exception:  # a shop goes on
            traceback.print_exc()
        jitter(milliseconds)


def until_enough(do):
    """What does something until the program is told that it has lost enough."""
    return lambda: None if ENOUGH.is_set() else do()


def in_background(do):
    """Starts a thread that ends with the program."""
    threading.Thread(target=do, daemon=True).start()


def wait_for_ever():
    """Asks somebody who never answers."""
    with socket.create_connection(("127.0.0.1", setting("CORPUS_HOLE"))) as provider:
        provider.recv(1)


def run(leaks, behaviours, serve):
    """Serves; at a line on stdin begins with the pattern that the command line names, at another ends a leak."""
    pattern = sys.argv[1]
    if pattern not in leaks and pattern not in behaviours:
        sys.exit(f"unknown pattern {pattern}")
    if pattern not in ("idle", "rotation", "prefork"):
        for _ in range(2):
            in_background(lambda: every(setting("CORPUS_LOAD"), serve))
    print("ready", flush=True)
    sys.stdin.readline()
    if pattern in leaks:
        in_background(lambda: every(setting("CORPUS_EVERY"), until_enough(leaks[pattern])))
    else:
        in_background(behaviours[pattern])
    for _ in sys.stdin:
        ENOUGH.set()
    os._exit(0)
