"""A store in memory behind the JSON API of Google Cloud Storage, as far as gcsfs, google-cloud-storage and tensorstore
speak it: so the clients are the real ones, and only the far end is not."""

import base64
import functools
import hashlib
import http.server
import importlib.util
import json
import re
import threading
import urllib.parse

import pytest

OBJECT = re.compile(r"/(?:download/)?storage/v1/b/([^/]+)/o/([^/]+)")
MOVE = re.compile(r"/storage/v1/b/([^/]+)/o/([^/]+)/(moveTo|rewriteTo|copyTo)/(?:b/([^/]+)/)?o/([^/]+)")
LIST = re.compile(r"/storage/v1/b/([^/]+)/o/?")
BUCKET = re.compile(r"/storage/v1/b/([^/]+)")
UPLOAD = re.compile(r"/upload/storage/v1/b/([^/]+)/o")


class Refused(Exception):
    """(status, message)"""


class Store:
    """files: {bucket: {name: bytes}}. closed, readonly: buckets that nobody may enter, or write to. uploads: names, in
    the order in which they appeared."""

    def __init__(self):
        self.files = {"mine": {}, "closed": {}, "readonly": {}}
        self.closed, self.readonly = {"closed"}, {"readonly"}
        self.generations, self.started, self.uploads, self.lock = {}, {}, [], threading.RLock()

    def under(self, folder):
        """{rest of the name: bytes} of what lies in a folder of the bucket `mine`."""
        with self.lock:
            found = dict(self.files["mine"])
        return {name[len(folder) + 1 :]: data for name, data in found.items() if name.startswith(f"{folder}/")}

    def upload(self, folder, local):
        """Puts a folder of this machine there."""
        for path in local.rglob("*"):
            if path.is_file():
                self.put("mine", f"{folder}/{path.relative_to(local).as_posix()}", path.read_bytes())

    def bucket(self, name, write=False):
        if name not in self.files:
            raise Refused(404, "The specified bucket does not exist.")
        if name in self.closed or write and name in self.readonly:
            raise Refused(403, "somebody does not have storage.objects access to the bucket.")
        return self.files[name]

    def expect(self, bucket, name, query):
        """Refuses a change that was meant for another generation of the file."""
        now = self.generations.get((bucket, name), 0) if name in self.files[bucket] else 0
        if int(query.get("ifGenerationMatch", now)) != now:
            raise Refused(412, "conditionNotMet")
        return now

    def put(self, bucket, name, data, query=None):
        with self.lock:
            files = self.bucket(bucket, write=query is not None)
            self.expect(bucket, name, query or {})
            files[name] = bytes(data)
            self.generations[bucket, name] = 1 + max(self.generations.values(), default=0)
            self.uploads.append(name)
            return self.about(bucket, name)

    def read(self, bucket, name):
        files = self.bucket(bucket)
        if name not in files:
            raise Refused(404, f"No such object: {bucket}/{name}")
        return files[name]

    def about(self, bucket, name):
        data = self.read(bucket, name)
        return {
            "kind": "storage#object", "name": name, "bucket": bucket, "size": str(len(data)), "metageneration": "1",
            "generation": str(self.generations[bucket, name]), "contentType": "application/octet-stream",
            "timeCreated": "2024-01-01T00:00:00.000Z", "updated": "2024-01-01T00:00:00.000Z", "storageClass": "STANDARD",
            "md5Hash": base64.b64encode(hashlib.md5(data).digest()).decode(),
        }  # fmt: skip

    def list(self, bucket, query):
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        found = {}
        for name in sorted(self.bucket(bucket)):
            if not name.startswith(prefix) or not query.get("startOffset", "") <= name < query.get("endOffset", "\U0010ffff"):
                continue
            inside, mark, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
            found[f"{prefix}{inside}{mark}" if mark else name] = bool(mark)
        names = [name for name in found if name > query.get("pageToken", "")]
        page = names[: int(query.get("maxResults", 1000))]
        said = {"kind": "storage#objects", "prefixes": [name for name in page if found[name]]}
        said["items"] = [self.about(bucket, name) for name in page if not found[name]]
        return said | ({"nextPageToken": page[-1]} if len(page) < len(names) else {})


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version, wbufsize, disable_nagle_algorithm = "HTTP/1.1", 2**16, True

    def log_message(self, *_):
        pass

    def answer(self):
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        store = self.server.store
        try:
            with store.lock:
                status, headers, data = self.serve(store, url.path, query, body)
        except Refused as refused:
            status, message = refused.args
            status, headers, data = status, {}, {"error": {"code": status, "message": message}}
        data = data if isinstance(data, bytes) else json.dumps(data).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if status not in (204, 304):
            self.wfile.write(data)

    do_GET = do_POST = do_PUT = do_DELETE = answer

    def serve(self, store, path, query, body):
        """(status, headers, bytes or JSON)"""
        unquote = urllib.parse.unquote
        if found := UPLOAD.fullmatch(path):
            return self.upload(store, unquote(found[1]), query, body)
        if found := MOVE.fullmatch(path):
            bucket, name, verb, other, new = (text and unquote(text) for text in found.groups())
            made = store.put(other or bucket, new, store.read(bucket, name), query)
            if verb == "moveTo":
                del store.files[bucket][name]
            return 200, {}, {"done": True, "resource": made} if verb == "rewriteTo" else made
        if found := OBJECT.fullmatch(path):
            bucket, name = map(unquote, found.groups())
            if self.command == "DELETE":
                store.read(bucket, name)
                store.bucket(bucket, write=True)
                store.expect(bucket, name, query)
                del store.files[bucket][name]
                return 204, {}, b""
            if query.get("alt") == "media":
                return self.media(store, bucket, name, query)
            return 200, {}, store.about(bucket, name)
        if found := LIST.fullmatch(path):
            return 200, {}, store.list(unquote(found[1]), query)
        if found := BUCKET.fullmatch(path):
            store.bucket(found[1])
            return 200, {}, {"kind": "storage#bucket", "name": found[1], "id": found[1], "locationType": "region"}
        raise Refused(501, f"the stand-in does not know {self.command} {path}")

    def media(self, store, bucket, name, query):
        data, now = store.read(bucket, name), store.expect(bucket, name, query)
        headers = {"x-goog-generation": str(now), "x-goog-metageneration": "1", "Content-Type": "application/octet-stream"}
        if query.get("ifGenerationNotMatch") == str(now):
            return 304, headers, b""
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not wanted:
            return 200, headers, data
        first, last = wanted[1], wanted[2]
        start = int(first) if first else max(len(data) - int(last), 0)
        end = min(int(last) + 1, len(data)) if first and last else len(data)
        if start >= len(data):
            raise Refused(416, "The requested range cannot be satisfied.")
        return 206, headers | {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}, data[start:end]

    def upload(self, store, bucket, query, body):
        store.bucket(bucket, write=True)
        if "upload_id" in query:
            name, before = store.started[query["upload_id"]]
            before += body
            if self.headers["Content-Range"].endswith("/*"):
                return 308, {"Range": f"bytes=0-{len(before) - 1}"}, b""
            return 200, {}, store.put(bucket, name, before, query)
        if query["uploadType"] == "media":
            return 200, {}, store.put(bucket, query["name"], body, query)
        if query["uploadType"] == "resumable":
            number = str(len(store.started))
            store.started[number] = (query.get("name") or json.loads(body)["name"], bytearray())
            return 200, {"Location": f"http://{self.headers['Host']}/upload/storage/v1/b/{bucket}/o?upload_id={number}"}, b""
        parts = re.fullmatch(rb"--(\S+)\r?\n.*?\r?\n\r?\n(.*?)\r?\n--\1\r?\n.*?\r?\n\r?\n(.*)\r?\n--\1--\s*", body, re.DOTALL)
        return 200, {}, store.put(bucket, json.loads(parts[2])["name"], parts[3], query)


@functools.cache
def server():
    """One for all tests of a process: tensorstore looks up once where the store is."""
    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.daemon_threads, made.store, made.handle_error = True, Store(), lambda *_: None  # clients hang up as they like
    threading.Thread(target=made.serve_forever, daemon=True).start()
    return made


@pytest.fixture
def store(monkeypatch):
    """The stand-in, empty, with all clients pointed at it: gs://mine takes everything, gs://readonly can only be read,
    gs://closed neither, and there is no other bucket."""
    if importlib.util.find_spec("gcsfs") is None:
        pytest.skip('gcsfs is not installed: pip install -c constraints.txt -e ".[test]"')
    found = server()
    host = f"http://127.0.0.1:{found.server_address[1]}"
    for name in ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL"):
        monkeypatch.setenv(name, host)
    monkeypatch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "none")
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    found.store.__init__()
    return found.store
