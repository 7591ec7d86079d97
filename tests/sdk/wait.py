"""Waits until a process answers at every one of its ports: wait.py PID PORT..."""

import http.client
import os
import sys
import time

DEADLINE_S = 60


def answers(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", "/v1/models")
        return connection.getresponse().status in (200, 401)
    except OSError:
        return False
    finally:
        connection.close()


def main():
    pid, *ports = map(int, sys.argv[1:])
    until = time.monotonic() + DEADLINE_S
    while not all(map(answers, ports)):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            sys.exit("the gateway left before it answered")
        if time.monotonic() > until:
            sys.exit(f"the gateway did not answer within {DEADLINE_S} s")
        time.sleep(0.02)


main()
