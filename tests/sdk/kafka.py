"""A Kafka broker as far as a producer sees one: ApiVersions 0, Metadata 1 and Produce 3, for one topic.

https://kafka.apache.org/protocol, https://kafka.apache.org/documentation/#recordbatch
"""

import gzip
import io
import socketserver
import struct
import threading

PRODUCE, METADATA, API_VERSIONS = 0, 3, 18
UNSUPPORTED_VERSION, UNKNOWN_TOPIC, CORRUPT_MESSAGE = 35, 3, 2


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


class Reader(io.BytesIO):
    def get(self, form):
        return struct.unpack(f">{form}", self.read(struct.calcsize(f">{form}")))[0]

    def string(self):
        size = self.get("h")
        return None if size < 0 else self.read(size).decode()

    def array(self, each):
        return [each() for _ in range(self.get("i"))]

    def varint(self):
        shift = value = 0
        while True:
            [byte] = self.read(1)
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return (value >> 1) ^ -(value & 1)

    def sized(self):
        size = self.varint()
        return None if size < 0 else self.read(size)


def string(text):
    return struct.pack(">h", len(text)) + text.encode()


def array(items):
    return struct.pack(">i", len(items)) + b"".join(items)


def records_of(batch):
    """Keys and values of a record batch whose checksum holds."""
    batch = Reader(batch)
    batch.read(8)
    batch = Reader(batch.read(batch.get("i")))
    batch.read(4)
    assert batch.get("b") == 2
    crc = batch.get("I")
    assert crc == crc32c(batch.getvalue()[batch.tell() :])
    compression = batch.get("h") & 7
    batch.read(4 + 8 + 8 + 8 + 2 + 4)
    count = batch.get("i")
    rest = batch.read()
    rest = Reader({0: bytes, 1: gzip.decompress}[compression](rest))
    records = []
    for _ in range(count):
        record = Reader(rest.read(rest.varint()))
        record.read(1)
        record.varint(), record.varint()
        records.append((record.sized(), record.sized()))
    return records


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        while len(size := self.rfile.read(4)) == 4:
            request = Reader(self.rfile.read(struct.unpack(">i", size)[0]))
            api, version, correlation = request.get("h"), request.get("h"), request.get("i")
            request.string()
            body = {API_VERSIONS: self.versions, METADATA: self.metadata, PRODUCE: self.produce}[api](version, request)
            answer = struct.pack(">i", correlation) + body
            self.wfile.write(struct.pack(">i", len(answer)) + answer)

    def versions(self, version, _):
        known = [(PRODUCE, 3, 3), (METADATA, 1, 1), (API_VERSIONS, 0, 0)]
        error = 0 if version == 0 else UNSUPPORTED_VERSION
        return struct.pack(">h", error) + array([struct.pack(">hhh", *each) for each in known])

    def metadata(self, version, _):
        assert version == 1
        broker = struct.pack(">i", 1) + string("127.0.0.1") + struct.pack(">ih", self.server.server_address[1], -1)
        partitions = [struct.pack(">hii", 0, at, 1) + array([struct.pack(">i", 1)]) * 2 for at in range(self.server.partitions)]
        topic = struct.pack(">h", 0) + string(self.server.topic) + b"\0" + array(partitions)
        return array([broker]) + struct.pack(">i", 1) + array([topic])

    def produce(self, version, request):
        assert version == 3
        request.string()
        assert request.get("h") == -1, "acknowledged by all replicas"
        request.get("i")
        topics = request.array(lambda: (request.string(), request.array(lambda: (request.get("i"), request.read(request.get("i"))))))
        answers = []
        for name, partitions in topics:
            assert name == self.server.topic
            done = []
            for at, batch in partitions:
                with self.server.lock:
                    error = 0 if self.server.taking else CORRUPT_MESSAGE
                    self.server.asked += 1
                    if not error:
                        self.server.records += [(at, *record) for record in records_of(batch)]
                done.append(struct.pack(">ihqq", at, error, len(self.server.records), -1))
            answers.append(string(name) + array(done))
        return array(answers) + struct.pack(">i", 0)


class Broker(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True

    def __init__(self, topic, partitions):
        super().__init__(("127.0.0.1", 0), Handler)
        self.topic, self.partitions, self.records, self.asked, self.taking = topic, partitions, [], 0, True
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()
