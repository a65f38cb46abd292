"""Keeps a program running by replacing it, again and again: the new one starts before the old one ends.

Arguments: the program's command line. A line on stdin begins the replacing.
"""

import random
import subprocess
import sys
import time


def start():
    """Starts one; what it says is nobody's business but that of the first."""
    return subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)


def main():
    """Replaces for ever."""
    current = start()
    time.sleep(2)
    print("ready", flush=True)
    sys.stdin.readline()
    while True:
        time.sleep(random.uniform(6, 10))
        successor = start()
        time.sleep(random.uniform(2, 4))
        current.terminate()
        current.wait()
        current = successor


main()
