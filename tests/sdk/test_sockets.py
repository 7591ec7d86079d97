"""No event waits for the next: both legs send at once, as the kernel has it of the gateway's own sockets."""

import ctypes
import os
import socket
from pathlib import Path

import pytest

from own import OwnGateway, free_ports

SYS_PIDFD_OPEN, SYS_PIDFD_GETFD = 434, 438


def sockets_of(pid):
    """Copies of another process's sockets: https://man7.org/linux/man-pages/man2/pidfd_getfd.2.html"""
    libc = ctypes.CDLL(None, use_errno=True)
    handle = libc.syscall(SYS_PIDFD_OPEN, pid, 0)
    found = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            is_socket = os.readlink(path).startswith("socket:")
        except FileNotFoundError:
            continue
        if is_socket:
            copy = libc.syscall(SYS_PIDFD_GETFD, handle, int(path.name), 0)
            if copy < 0:
                pytest.skip(f"sockets of others may not be looked at: {os.strerror(ctypes.get_errno())}")
            found.append(socket.socket(fileno=copy))
    os.close(handle)
    return found


def test_both_legs_send_at_once(tmp_path):
    [mock] = free_ports(1)
    with OwnGateway(tmp_path, {}, mock=mock) as gateway:
        assert gateway.http.post("/v1/chat/completions", json={"model": "mock-small", "messages": []}).status_code == 200
        own = int(gateway.url.rsplit(":", 1)[1])
        legs = {"down": [], "up": []}
        for one in sockets_of(gateway.process.pid):
            with one:
                if one.family == socket.AF_INET and one.type == socket.SOCK_STREAM and not one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    at, peer = one.getsockname()[1], one.getpeername()[1]
                    if own in (at, peer) or mock in (at, peer):
                        legs["down" if at == own else "up"].append(one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        # The mock is the gateway's own, so its end of the second leg is among them.
        assert legs["down"] == [1] and legs["up"] and set(legs["up"]) == {1}, legs
