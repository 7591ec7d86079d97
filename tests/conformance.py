"""What a peer may and may not say in HTTP/1.1 and HTTP/2: conformance.py BINARY BARE, where BARE is Pingora alone.

Each case is a piece of a conversation and the verdicts that the standards allow on it: RFC 9110 and 9112 for HTTP/1.1, RFC 9113
and 7541 for HTTP/2 (the sections stand beside the cases). The gateway must reach one of them, or, where it does not, do what
Pingora does. Needs the packages hpack and hyperframe.
"""

import json
import re
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hpack import Decoder, Encoder
from hyperframe.frame import Frame, GoAwayFrame, HeadersFrame, PingFrame, RstStreamFrame

binary, bare = sys.argv[1:]
DEADLINE_S = 5
PATH = "/v1/chat/completions"
BODY = json.dumps({"model": "mock-small?chunks=1", "messages": [{"role": "user", "content": "Hi"}]}).encode()
LENGTH = f"Content-Length: {len(BODY)}\r\n".encode()
CHUNKED = b"Transfer-Encoding: chunked\r\n"

# Verdicts.
SERVED, REFUSED, CLOSED, SMUGGLED, SILENT = "served", "refused", "closed", "smuggled", "silent"
NO = {REFUSED, CLOSED}
ANY = {SERVED, *NO}


def request(*fields, line=b"POST " + PATH.encode() + b" HTTP/1.1", host=b"Host: localhost\r\n", body=BODY, last=b"Connection: close\r\n"):
    return line + b"\r\n" + host + b"Content-Type: application/json\r\n" + b"".join(fields) + last + b"\r\n" + body


def chunks(*pieces, end=b"0\r\n\r\n"):
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + end


GOOD = request(LENGTH)
FIRST = request(LENGTH, last=b"")
UNFINISHED = request(b"Content-Length: 9999\r\n"), GOOD[:30], b""
HALVES = BODY[:9], BODY[9:]
NOWHERE = b"POST /v1/none HTTP/1.1"
# What a proxy that reads the body otherwise would take for a request; there is no such path, so it would be told apart.
HIDDEN = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"


def named(name, value=b"v"):
    return request(LENGTH, name + b": " + value + b"\r\n")


HTTP1 = [
    # RFC 9112, 2 and 3: messages and request lines.
    ("a plain request", GOOD, {SERVED}),
    ("two requests one after the other (9.3.2)", FIRST + GOOD, {SERVED}),
    ("an empty line before it (2.2)", b"\r\n" + GOOD, ANY),
    ("lines that end in LF alone (2.2)", GOOD.replace(b"\r\n", b"\n"), ANY),
    ("white space before the first field (2.2)", GOOD.replace(b"Host", b" Host", 1), NO),
    ("CR inside a field (2.2)", named(b"X-A", b"a\rb"), NO),
    ("no version (3)", request(LENGTH, line=b"POST " + PATH.encode()), NO),
    ("a word too much (3)", request(LENGTH, line=b"POST " + PATH.encode() + b" x HTTP/1.1"), NO),
    ("white space in the path (3.2)", request(LENGTH, line=b"POST /v1/chat completions HTTP/1.1"), NO),
    ("a control character in the path (3.2)", request(LENGTH, line=b"POST /v1/\x01 HTTP/1.1"), NO),
    ("a version in small letters (2.3)", request(LENGTH, line=b"POST " + PATH.encode() + b" http/1.1"), NO),
    ("a version that is none (2.3)", request(LENGTH, line=b"POST " + PATH.encode() + b" HTTP/x.1"), NO),
    ("HTTP/3 in a request line (2.3)", request(LENGTH, line=b"POST " + PATH.encode() + b" HTTP/3.0"), NO),
    ("a method that is none (3.1)", request(LENGTH, line=b"PO(T " + PATH.encode() + b" HTTP/1.1"), NO),
    ("a request of 18 bytes (3)", b"GET / HTTP/1.0\r\n\r\n", NO),
    ("the absolute form (3.2.2)", request(LENGTH, line=b"POST http://localhost" + PATH.encode() + b" HTTP/1.1"), {SERVED}),
    ("a path of 100 KB (3)", request(LENGTH, line=b"POST /" + b"a" * 100_000 + b" HTTP/1.1"), NO),
    ("no Host (3.2)", request(LENGTH, host=b""), NO),
    ("two Hosts (3.2)", request(LENGTH, host=b"Host: localhost\r\nHost: localhost\r\n"), NO),
    ("a Host that is none (3.2)", request(LENGTH, host=b"Host: local host\r\n"), NO),
    # 5: fields.
    ("white space before the colon (5.1)", named(b"X-A "), NO),
    ("a folded field (5.2)", named(b"X-A", b"a\r\n b"), ANY),
    ("a field without a colon (5)", request(LENGTH, b"X-A\r\n"), NO),
    ("a field without a name (5)", request(LENGTH, b": a\r\n"), NO),
    ("a name with a character that may not be (5)", named(b"X(A"), NO),
    ("NUL in a field (RFC 9110, 5.5)", named(b"X-A", b"a\0b"), NO),
    ("bytes above 127 in a field (RFC 9110, 5.5)", named(b"X-A", b"\xe4\xff"), ANY),
    ("tabs around a value (5.1)", request(b"Content-Length:\t" + str(len(BODY)).encode() + b" \t\r\n"), {SERVED}),
    ("names in capitals (5.1)", request(LENGTH.upper()), {SERVED}),
    ("a field of 2 MB", named(b"X-A", b"a" * 2_000_000), NO),
    ("100,000 fields", request(LENGTH, b"A: b\r\n" * 100_000), NO),
    # 6: the length of bodies.
    ("no body (6.3)", request(b"Content-Length: 0\r\n", body=b""), NO),
    ("Content-Length twice, the same (6.3)", request(LENGTH, LENGTH), ANY),
    ("Content-Length twice, different (6.3)", request(LENGTH, b"Content-Length: 3\r\n"), NO),
    ("a list of lengths (6.3)", request(b"Content-Length: 3, 4\r\n"), NO),
    ("a negative length (6.2)", request(b"Content-Length: -3\r\n"), NO),
    ("a length with a sign (6.2)", request(b"Content-Length: +%d\r\n" % len(BODY)), NO),
    ("a hexadecimal length (6.2)", request(b"Content-Length: 0x1\r\n"), NO),
    ("an empty length (6.2)", request(b"Content-Length:\r\n"), NO),
    ("a length above 64 bits (6.2)", request(b"Content-Length: 99999999999999999999999\r\n"), NO),
    ("both lengths (6.3)", request(b"Content-Length: 5\r\n", CHUNKED, body=chunks(BODY)), ANY),
    ("both, one of them hiding a request (6.3)", request(b"Content-Length: 5\r\n", CHUNKED, body=chunks(end=b"0\r\n\r\n") + HIDDEN), NO),
    ("an encoding that nobody knows (6.1)", request(b"Transfer-Encoding: xchunked\r\n", body=chunks(BODY) + HIDDEN), NO),
    ("chunked that is not last (6.1)", request(b"Transfer-Encoding: chunked, identity\r\n", body=chunks(BODY) + HIDDEN), NO),
    ("chunked twice (6.1)", request(b"Transfer-Encoding: chunked, chunked\r\n", body=chunks(BODY)), NO),
    ("chunks in HTTP/1.0 (6.1)",
     request(CHUNKED, line=b"POST " + PATH.encode() + b" HTTP/1.0", body=chunks(BODY) + HIDDEN), NO),
    # 7: chunks.
    ("chunks (7.1)", request(CHUNKED, body=chunks(*HALVES)), {SERVED}),
    ("extensions of chunks (7.1.1)", request(CHUNKED, body=b'%x;a="b";c\r\n%s\r\n0;d\r\n\r\n' % (len(BODY), BODY)), ANY),
    ("a trailer (7.1.2)", request(CHUNKED, body=chunks(BODY, end=b"0\r\nX-A: b\r\n\r\n")), ANY),
    ("chunk sizes with zeros in front, in capitals (7.1)",
     request(CHUNKED, body=b"000%X\r\n%s\r\n00\r\n\r\n" % (len(BODY), BODY)), {SERVED}),
    ("chunk sizes that are none (7.1)", request(CHUNKED, body=b"zz\r\n" + BODY + b"\r\n0\r\n\r\n"), NO),
    ("a negative chunk (7.1)", request(CHUNKED, body=b"-1\r\n" + BODY + b"\r\n0\r\n\r\n"), NO),
    ("a chunk size with 0x (7.1)", request(CHUNKED, body=b"0x%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)), NO),
    ("a chunk above 64 bits (7.1)", request(CHUNKED, body=b"f" * 17 + b"\r\n" + BODY + b"\r\n0\r\n\r\n"), NO),
    ("a chunk longer than it says (7.1)", request(CHUNKED, body=b"3\r\n" + BODY + b"\r\n0\r\n\r\n"), NO),
    ("a chunk without an end of line (7.1)", request(CHUNKED, body=b"%x\r\n%s0\r\n\r\n" % (len(BODY), BODY)), NO),
    ("the end of the connection inside a body (8)", UNFINISHED[0], NO),
    ("the end of the connection inside a head (8)", UNFINISHED[1], NO),
    # 9: connections.
    ("HTTP/1.0 (9.3)", request(LENGTH, line=b"POST " + PATH.encode() + b" HTTP/1.0"), {SERVED}),
    ("100-continue (RFC 9110, 10.1.1)", request(LENGTH, b"Expect: 100-continue\r\n"), {SERVED}),
    ("HEAD, whose answers have no body (RFC 9110, 9.3.2)", b"HEAD /v1/none HTTP/1.1\r\nHost: localhost\r\n\r\n" + GOOD, {SERVED}),
    ("a refused request, and another (9.3)", b"GET /v1/none HTTP/1.1\r\nHost: localhost\r\n\r\n" + GOOD, {SERVED}),
    ("a refused request with a body, and another (9.3)", NOWHERE + FIRST[FIRST.index(b"\r\n"):] + GOOD, {SERVED, REFUSED}),
    ("a request in the body of a refused one (9.3)",
     NOWHERE + b"\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN, NO),
    ("the preface of HTTP/2 in small letters", b"pri * http/2.0\r\n\r\nsm\r\n\r\n", NO),
    ("TLS", bytes.fromhex("16030100c8010000c40303") + bytes(200), NO),
    ("nothing at all", UNFINISHED[2], {CLOSED}),
]


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as one:
        return one.getsockname()[1]


def read_all(sock):
    data = b""
    try:
        while more := sock.recv(65536):
            data += more
    except ConnectionError:
        pass
    except TimeoutError:
        return data, True
    return data, False


def connect(port):
    sock = socket.create_connection(("127.0.0.1", port), DEADLINE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def judge_http1(port, sent):
    """What becomes of a connection that says this and no more; the last of its requests asks for the end."""
    ends = sent in UNFINISHED
    with connect(port) as sock:
        try:
            sock.sendall(sent)
            if ends:
                sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        data, waits = read_all(sock)
    if waits:
        return SILENT
    statuses = [int(one) for one in re.findall(rb"HTTP/1\.[01] (\d\d\d)", data) if one != b"100"]
    if HIDDEN in sent and len(statuses) > 1:
        return SMUGGLED
    if not statuses:
        return CLOSED
    return SERVED if statuses[-1] < 300 else REFUSED


DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8
LAST = b"the last"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FIELDS = [(":method", "POST"), (":scheme", "http"), (":path", PATH), (":authority", "localhost"), ("content-type", "application/json")]


def raw(kind, flags, stream, payload):
    """A frame whose parts need not fit."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def headers(fields, stream=1, flags=END_HEADERS):
    return raw(HEADERS, flags, stream, Encoder().encode(fields))


def data(body=BODY, stream=1, flags=END_STREAM):
    return raw(DATA, flags, stream, body)


def asked(fields=FIELDS, stream=1, body=BODY):
    return headers(fields, stream) + data(body, stream)


def without(name):
    return [field for field in FIELDS if field[0] != name]


def setting(number, value):
    return raw(SETTINGS, 0, 0, number.to_bytes(2, "big") + value.to_bytes(4, "big"))


OPEN = headers(FIELDS)
SERVED_H2 = asked()
BROKEN = {REFUSED, CLOSED, "reset"}
# A frame that may be ignored or be an error.
EITHER = {SERVED, *BROKEN}
HTTP2 = [
    # RFC 9113, 3 to 5: preface, frames and streams.
    ("a request", SERVED_H2, {SERVED}),
    ("frames that nobody knows (4.1)", raw(0x99, 0xFF, 0, b"x" * 8) + SERVED_H2, {SERVED}),
    ("the reserved bit (4.1)", raw(PING, 0, 1 << 31, bytes(8)) + SERVED_H2, {SERVED}),
    ("a frame above the agreed size (4.2)", OPEN + raw(DATA, END_STREAM, 1, bytes(16_385)), BROKEN),
    ("fields above the agreed size (4.2)", raw(HEADERS, END_HEADERS | END_STREAM, 1, bytes(16_385)), BROKEN),
    ("fields cut by other frames (4.3)", headers(FIELDS, flags=0) + raw(PING, 0, 0, bytes(8)), BROKEN),
    ("fields cut by another stream's (4.3)", headers(FIELDS, flags=0) + raw(CONTINUATION, END_HEADERS, 3, b""), BROKEN),
    ("fields in two pieces (4.3)", headers(FIELDS, flags=0) + raw(CONTINUATION, END_HEADERS, 1, Encoder().encode([("x-a", "b")])) + data(), {SERVED}),
    ("fields that cannot be decoded (4.3)", raw(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff"), BROKEN),
    ("an index that does not exist (RFC 7541, 2.3.3)", raw(HEADERS, END_HEADERS, 1, b"\xfe"), BROKEN),
    ("index 0 (RFC 7541, 6.1)", raw(HEADERS, END_HEADERS, 1, b"\x80"), BROKEN),
    ("a table above the agreed size (RFC 7541, 6.3)", raw(HEADERS, END_HEADERS, 1, b"\x3f\xe1\xff\x7f" + Encoder().encode(FIELDS)), BROKEN),
    ("DATA on an idle stream (5.1)", data(), BROKEN),
    ("RST_STREAM on an idle stream (5.1)", raw(RST_STREAM, 0, 1, bytes(4)), BROKEN),
    ("WINDOW_UPDATE on an idle stream (5.1)", raw(WINDOW_UPDATE, 0, 1, (5).to_bytes(4, "big")), BROKEN),
    ("DATA after the end (5.1)", SERVED_H2 + data(), BROKEN | {SERVED}),
    ("HEADERS after the end (5.1)", SERVED_H2 + OPEN, BROKEN | {SERVED}),
    ("an even stream (5.1.1)", asked(stream=2), BROKEN),
    ("a stream below the last (5.1.1)", asked(stream=5) + asked(stream=3), BROKEN),
    ("stream 0 (5.1.1)", raw(HEADERS, END_HEADERS | END_STREAM, 0, Encoder().encode(FIELDS)), BROKEN),
    # 6: frames.
    ("DATA on stream 0 (6.1)", raw(DATA, END_STREAM, 0, b"x"), BROKEN),
    ("more padding than DATA (6.1)", OPEN + raw(DATA, END_STREAM | PADDED, 1, b"\xffab"), BROKEN),
    ("DATA with padding (6.1)", OPEN + raw(DATA, END_STREAM | PADDED, 1, b"\x03" + BODY + bytes(3)), {SERVED}),
    ("more padding than HEADERS (6.2)", raw(HEADERS, END_HEADERS | END_STREAM | PADDED, 1, b"\xff" + Encoder().encode(FIELDS)), BROKEN),
    ("PRIORITY on stream 0 (6.3)", raw(PRIORITY, 0, 0, bytes(5)), BROKEN),
    ("PRIORITY of 4 bytes (6.3)", raw(PRIORITY, 0, 1, bytes(4)) + SERVED_H2, EITHER),
    ("PRIORITY (6.3)", raw(PRIORITY, 0, 3, bytes(5)) + SERVED_H2, {SERVED}),
    ("RST_STREAM on stream 0 (6.4)", raw(RST_STREAM, 0, 0, bytes(4)), BROKEN),
    ("RST_STREAM of 3 bytes (6.4)", OPEN + raw(RST_STREAM, 0, 1, bytes(3)), BROKEN),
    ("SETTINGS on a stream (6.5)", raw(SETTINGS, 0, 1, bytes(6)), BROKEN),
    ("an acknowledgement with a payload (6.5)", raw(SETTINGS, ACK, 0, bytes(6)), BROKEN),
    ("SETTINGS of 5 bytes (6.5)", raw(SETTINGS, 0, 0, bytes(5)), BROKEN),
    ("a push that is neither on nor off (6.5.2)", setting(2, 2), BROKEN),
    ("a window above 2^31 - 1 (6.5.2)", setting(4, 1 << 31), BROKEN),
    ("frames below 2^14 (6.5.2)", setting(5, 100), BROKEN),
    ("frames above 2^24 - 1 (6.5.2)", setting(5, 1 << 24), BROKEN),
    ("a setting that nobody knows (6.5.2)", setting(0xFF, 1) + SERVED_H2, {SERVED}),
    ("PUSH_PROMISE of a client (6.6)", OPEN + raw(PUSH_PROMISE, END_HEADERS, 1, (2).to_bytes(4, "big") + Encoder().encode(FIELDS)), BROKEN),
    ("PING on a stream (6.7)", raw(PING, 0, 1, bytes(8)), BROKEN),
    ("PING of 6 bytes (6.7)", raw(PING, 0, 0, bytes(6)), BROKEN),
    ("GOAWAY on a stream (6.8)", raw(GOAWAY, 0, 1, bytes(8)), BROKEN),
    ("WINDOW_UPDATE by nothing (6.9)", raw(WINDOW_UPDATE, 0, 0, bytes(4)), BROKEN),
    ("WINDOW_UPDATE of a stream by nothing (6.9)", OPEN + raw(WINDOW_UPDATE, 0, 1, bytes(4)), BROKEN),
    ("WINDOW_UPDATE of 3 bytes (6.9)", raw(WINDOW_UPDATE, 0, 0, bytes(3)), BROKEN),
    ("a window above 2^31 - 1 by updates (6.9.1)", raw(WINDOW_UPDATE, 0, 0, (0x7FFFFFFF).to_bytes(4, "big")) * 2, BROKEN),
    ("CONTINUATION of nothing (6.10)", raw(CONTINUATION, END_HEADERS, 1, Encoder().encode(FIELDS)), BROKEN),
    ("CONTINUATION on stream 0 (6.10)", headers(FIELDS, flags=0) + raw(CONTINUATION, END_HEADERS, 0, b""), BROKEN),
    # 8: requests.
    ("names in capitals (8.2.1)", asked([*FIELDS, ("X-A", "b")]), BROKEN),
    ("a line end in a value (8.2.1)", asked([*FIELDS, ("x-a", "b\r\nc: d")]), BROKEN),
    ("Connection (8.2.2)", asked([*FIELDS, ("connection", "keep-alive")]), BROKEN),
    ("Transfer-Encoding (8.2.2)", asked([*FIELDS, ("transfer-encoding", "chunked")]), BROKEN),
    ("TE other than trailers (8.2.2)", asked([*FIELDS, ("te", "gzip")]), BROKEN),
    ("a pseudo-header that nobody knows (8.3)", asked([(":x", "y"), *FIELDS]), BROKEN),
    ("one of responses (8.3)", asked([(":status", "200"), *FIELDS]), BROKEN),
    ("one after a field (8.3)", asked([*without(":path"), (":path", PATH)]), BROKEN),
    ("one twice (8.3)", asked([(":path", PATH), *FIELDS]), BROKEN),
    ("one in trailers (8.1)", OPEN + data(flags=0) + headers([(":path", "/")], flags=END_HEADERS | END_STREAM), BROKEN),
    ("no method (8.3.1)", asked(without(":method")), BROKEN),
    ("no scheme (8.3.1)", asked(without(":scheme")), BROKEN),
    ("no path (8.3.1)", asked(without(":path")), BROKEN),
    ("an empty path (8.3.1)", asked([*without(":path")[:2], (":path", ""), *FIELDS[3:]]), BROKEN),
    ("a length that is less than the body (8.1.1)", asked([*FIELDS, ("content-length", "1")]), BROKEN),
    ("a length that is more than the body (8.1.1)", asked([*FIELDS, ("content-length", str(len(BODY) + 1))]), BROKEN),
    ("trailers (8.1)", OPEN + data(flags=0) + headers([("x-a", "b")], flags=END_HEADERS | END_STREAM), {SERVED}),
    ("trailers that do not end (8.1)", OPEN + data(flags=0) + headers([("x-a", "b")]), BROKEN),
    # Floods: bounded, or ended.
    ("20,000 streams begun and reset (CVE-2023-44487)",
     b"".join(headers(FIELDS, at) + raw(RST_STREAM, 0, at, (8).to_bytes(4, "big")) for at in range(1, 40_001, 2)), BROKEN),
    ("endless fields (CVE-2024-27316)", headers(FIELDS, flags=0) + raw(CONTINUATION, 0, 1, bytes([0]) + b"\x01a\x01b" + b"\x00\x01a\x01b" * 3000) * 200,
     BROKEN),
    ("100,000 empty SETTINGS (CVE-2019-9515)", raw(SETTINGS, 0, 0, b"") * 100_000 + SERVED_H2, EITHER),
]


def judge_http2(port, sent):
    """What becomes of a connection that agrees on settings, says this, and then asks for a sign of life."""
    with connect(port) as sock:
        try:
            sock.sendall(PREFACE + raw(SETTINGS, 0, 0, b"") + sent)
            sock.sendall(raw(PING, 0, 0, LAST))
        except ConnectionError:
            pass
        return verdict(sock)


def verdict(sock):
    buffer, verdicts, alive, decoder = b"", [], False, Decoder()
    while True:
        try:
            more = sock.recv(65536)
        except ConnectionError:
            more = b""
        except TimeoutError:
            return verdicts[-1] if verdicts else SILENT
        if not more:
            return CLOSED if not verdicts or verdicts[-1] == SERVED else verdicts[-1]
        buffer += more
        while len(buffer) >= 9:
            frame, length = Frame.parse_frame_header(memoryview(buffer[:9]))
            if len(buffer) < 9 + length:
                break
            frame.parse_body(memoryview(buffer[9:9 + length]))
            buffer = buffer[9 + length:]
            if isinstance(frame, GoAwayFrame) and frame.error_code:
                return CLOSED
            if isinstance(frame, RstStreamFrame) and frame.error_code:
                verdicts.append("reset")
            if isinstance(frame, HeadersFrame):
                status = dict(decoder.decode(frame.data)).get(":status")
                verdicts += [SERVED if int(status) < 300 else REFUSED] if status else []
            alive |= isinstance(frame, PingFrame) and frame.opaque_data == LAST
        if alive and verdicts:
            return verdicts[-1]


def start(scratch, command, port):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=(scratch / f"{port}.err").open("w"))
    until = time.monotonic() + 30
    while socket.socket().connect_ex(("127.0.0.1", port)):
        assert process.poll() is None and time.monotonic() < until, f"{command[0]} did not start"
        time.sleep(0.02)
    return process


def main():
    scratch = Path(tempfile.mkdtemp(prefix="tollgate-conformance-"))
    mock, ours, theirs = free_port(), free_port(), free_port()
    settings = {"listen": [f"127.0.0.1:{ours}"], "hosts": ["localhost"], "admin": "off", "mock": "off", "workers": 1, "data": str(scratch / "data"),
                "environment_providers": False, "sinks": {"sqlite": False}, "access_log": str(scratch / "log"),
                "providers": {"mock": {"base_url": f"http://127.0.0.1:{mock}/v1"}}}
    config = scratch / "tollgate.yaml"
    config.write_text(json.dumps(settings))
    processes = [start(scratch, [binary, "mock", "--listen", f"127.0.0.1:{mock}"], mock), start(scratch, [binary, "-c", config], ours),
                 start(scratch, [bare, f"127.0.0.1:{theirs}", f"127.0.0.1:{mock}", "1"], theirs)]
    failed = []
    try:
        for version, cases, judge in (("HTTP/1.1", HTTP1, judge_http1), ("HTTP/2", HTTP2, judge_http2)):
            kept = [0, 0]
            for name, sent, allowed in cases:
                verdicts = [judge(port, sent) for port in (ours, theirs)]
                kept = [count + (one in allowed) for count, one in zip(kept, verdicts)]
                if verdicts[0] not in allowed:
                    print(f"{version}: {name}: {verdicts[0]} (Pingora: {verdicts[1]}), allowed: {', '.join(sorted(allowed))}")
                    if verdicts[0] != verdicts[1]:
                        failed.append(name)
            print(f"{version}: {kept[0]} of {len(cases)} cases; Pingora alone: {kept[1]}")
        assert judge_http1(ours, GOOD) == SERVED, "the gateway no longer serves"
        assert all(process.poll() is None for process in processes), "something ended"
        said = (scratch / f"{ours}.err").read_text()
        assert "panicked" not in said, said
        assert not failed, f"below Pingora: {', '.join(failed)}"
    finally:
        for process in processes:
            process.kill()


main()
