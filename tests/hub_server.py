"""A Hugging Face Hub on loopback for the real client, with a log of what it was asked and faults on order.

It serves what huggingface_hub calls: repos, branches, tags, pull requests, private and gated repos, tokens,
card validation, commits over LFS (basic and multipart) or Xet, and downloads with ranges from a second origin
as from a CDN. By hand: `python tests/hub_server.py`, and give the client its HF_ENDPOINT and HF_TOKEN.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import re
import socket
import struct
import tempfile
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

import uvicorn
import yaml
from huggingface_hub.repocard import REGEX_YAML_BLOCK
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from uvicorn.protocols.http.h11_impl import H11Protocol

USERS = {
    "hf_writerOfOrg00000000000000000000000": ("writer", "write", {"org"}),
    "hf_readerOfOrg00000000000000000000000": ("reader", "read", {"org"}),
    "hf_outsider00000000000000000000000000": ("outsider", "write", set()),
}
"""token -> (name, role, organisations)"""
WRITER, READER, OUTSIDER = USERS
LFS_SUFFIXES = (".safetensors", ".npz", ".pth", ".pt", ".onnx", ".whl", ".png", ".bin")
PAGE = 3


class Blob(NamedTuple):
    """One version of one file."""

    oid: str
    """Git's SHA-1 of the file, or of its LFS pointer."""
    size: int
    sha256: str | None = None
    """Only for LFS files."""
    xet: str | None = None

    @property
    def etag(self) -> str:
        return self.sha256 or self.oid

    @property
    def lfs(self) -> dict[str, object] | None:
        return None if self.sha256 is None else {"oid": self.sha256, "sha256": self.sha256, "size": self.size}


@dataclass
class Repo:
    """A git repository as far as the API shows it: commits are whole trees, refs point to them."""

    id: str
    kind: str
    private: bool = False
    gated: bool = False
    accepted: set[str] = field(default_factory=set)
    """Names of the users who accepted the terms of a gated repo."""
    trees: dict[str, dict[str, Blob]] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    descriptions: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    """Settings of a Space."""
    refs: dict[str, str] = field(default_factory=dict)

    @property
    def head(self) -> str:
        return self.refs["refs/heads/main"]

    def commit(self, ref: str, tree: dict[str, Blob], message: str) -> str:
        sha = hashlib.sha1(f"{self.id} {len(self.trees)} {message}".encode()).hexdigest()
        self.trees[sha], self.messages[sha], self.refs[ref] = tree, message, sha
        return sha

    def find(self, revision: str) -> str | None:
        if revision in self.trees:
            return revision
        names = (revision, f"refs/heads/{revision}", f"refs/tags/{revision}")
        return next((self.refs[name] for name in names if name in self.refs), None)


class Entry(NamedTuple):
    """One request as served."""

    what: str
    """What was asked for: `info`, `commit`, `head:config.json`, `cdn:model.safetensors` …"""
    method: str
    path: str
    origin: str
    headers: dict[str, str]
    status: int
    fault: str | None


@dataclass
class Fault:
    what: str
    kind: str
    times: float


class Refused(Exception):
    """The answer to a request that cannot be granted."""

    def __init__(self, status: int, code: str = "", message: str = "", **headers: str) -> None:
        named = {"X-Error-Code": code, "X-Error-Message": message, **headers}
        self.response = JSONResponse(
            {"error": message}, status, {k.replace("_", "-"): v for k, v in named.items() if v}
        )


_TRANSPORTS: dict[tuple[str, int], asyncio.Transport] = {}


class _Protocol(H11Protocol):
    """Remembers the transport of each connection, so that a fault can reset it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        _TRANSPORTS[transport.get_extra_info("peername")[:2]] = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class HubServer:
    """The server: `with HubServer() as hub:` runs it in a thread; `hub.endpoint` is its URL."""

    def __init__(self, port: int = 0) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="hub-")
        api, cdn = (socket.create_server(("127.0.0.1", p)) for p in (port, 0))
        # one name for the API and another for the files: the client must not send its token to the second
        self.endpoint = f"http://localhost:{api.getsockname()[1]}"
        self.cdn = f"http://127.0.0.1:{cdn.getsockname()[1]}"
        self._cdn_port = cdn.getsockname()[1]
        self._sockets = [api, cdn]
        config = uvicorn.Config(
            self.app,
            interface="asgi3",
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
        )
        for name in ("uvicorn.error", "uvicorn.access"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # a test reads the client's logs
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=(self._sockets,), daemon=True)
        self.reset()

    def reset(self) -> None:
        """Forget every repo, file, fault and log entry."""
        self.repos: dict[tuple[str, str], Repo] = {}
        self.objects: dict[str, bytes] = {}
        self.log: list[Entry] = []
        self.faults: list[Fault] = []
        self.part_size: int | None = None
        """LFS uploads go in parts of so many bytes; None: in one."""
        self.retry_after = 1
        """Seconds."""

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join()
        for s in self._sockets:
            s.close()
        self.folder.cleanup()

    # --- for tests

    def add(self, repo_id: str, files: dict[str, bytes], *, kind: str = "models", **fields: Any) -> str:
        """A repo, or one more commit in it, made on the server's side: the new commit."""
        repo = self.repos.setdefault((kind, repo_id), Repo(repo_id, kind, **fields))
        tree = dict(repo.trees[repo.head]) if repo.refs else {}
        return repo.commit(
            "refs/heads/main", tree | {p: self._store(p, data) for p, data in files.items()}, "by hand"
        )

    def fault(self, what: str, kind: str, times: float = 1) -> None:
        """Answer the next `times` requests that match `what` (a pattern) with a fault.

        Kinds: a status such as "503"; "429" says Retry-After; "stall" never answers; "halt" stops in
        mid-body, as do "truncated" and "reset", which end the connection; "corrupt" changes one byte; "etag"
        names another hash; "html" is a captive portal's page; "echo" is an error that repeats the token.
        """
        self.faults.append(Fault(what, kind, times))

    def served(self, what: str = "*") -> list[Entry]:
        return [entry for entry in self.log if fnmatchcase(entry.what, what)]

    def read(self, repo_id: str, path: str, revision: str = "main", kind: str = "models") -> bytes:
        repo = self.repos[kind, repo_id]
        return self.objects[repo.trees[repo.find(revision) or ""][path].etag]

    def _store(self, path: str, data: bytes, *, lfs: bool | None = None) -> Blob:
        sha256 = hashlib.sha256(data).hexdigest()
        is_lfs = path.endswith(LFS_SUFFIXES) if lfs is None else lfs
        blob = _lfs_blob(sha256, len(data)) if is_lfs else Blob(_git_hash(data), len(data))
        self.objects[blob.etag] = data
        return blob

    # --- requests

    async def app(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        path = scope["raw_path"].decode()
        what, handle = self._route(request.method, path)
        fault = next((f for f in self.faults if f.times > 0 and fnmatchcase(what, f.what)), None)
        if fault is not None:
            fault.times -= 1
        kind = fault.kind if fault else None
        try:
            spoiled = kind in (None, "etag", "corrupt", "truncated", "reset", "halt")
            response = await handle(request) if spoiled else self._failure(str(kind), request)
        except Refused as e:
            response = e.response
        except ClientDisconnect:
            return
        origin = "cdn" if scope["server"][1] == self._cdn_port else "api"
        headers = {k.lower(): v for k, v in request.headers.items()}
        self.log.append(
            Entry(what, request.method, unquote(path), origin, headers, response.status_code, kind)
        )
        await _send(response, kind, scope, receive, send)

    def _failure(self, kind: str, request: Request) -> Response:
        if kind == "html":
            return Response("<html>Please sign in to the hotel's network</html>", media_type="text/html")
        if kind == "stall":
            return Response()
        if kind == "echo":
            return JSONResponse({"error": f"who is {request.headers.get('authorization')}?"}, 400)
        headers = {"Retry-After": str(self.retry_after)} if kind == "429" else {}
        return JSONResponse({"error": f"ordered: {kind}"}, int(kind), headers)

    def _route(self, method: str, path: str) -> tuple[str, Callable[[Request], Awaitable[Response]]]:
        repo = r"(?P<id>[^/]+/[^/]+)"
        api = rf"/api/(?P<kind>models|spaces|datasets)/{repo}"
        page = rf"/((?P<kind>spaces|datasets)/)?{repo}"
        rev, oid = r"(?P<rev>[^/]+)", r"(?P<oid>[0-9a-f]{64})"
        routes: list[tuple[str, str, str, Any]] = [
            ("POST", "create", "/api/repos/create", self.create),
            ("POST", "yaml", "/api/validate-yaml", self.validate_yaml),
            ("GET", "whoami", "/api/whoami-v2", self.whoami),
            ("GET", "info", rf"{api}(/revision/{rev})?", self.info),
            ("GET", "tree", rf"{api}/tree/{rev}", self.tree),
            ("GET", "refs", rf"{api}/refs", self.list_refs),
            ("POST", "branch", rf"{api}/branch/{rev}", self.branch),
            ("POST", "tag", rf"{api}/tag/{rev}", self.tag),
            ("POST", "variable", rf"{api}/variables", self.variable),
            ("POST", "preupload", rf"{api}/preupload/{rev}", self.preupload),
            ("POST", "commit", rf"{api}/commit/{rev}", self.commit),
            ("GET", "xet", rf"{api}/xet-(?P<role>read|write)-token/{rev}", self.xet_token),
            ("POST", "lfs-batch", rf"{page}\.git/info/lfs/objects/batch", self.lfs_batch),
            ("PUT", "lfs-put", rf"/lfs/{oid}(/(?P<part>\d+))?", self.lfs_put),
            ("POST", "lfs-complete", rf"/lfs/{oid}", self.lfs_complete),
            ("POST", "lfs-verify", rf"/lfs/{oid}/verify", self.lfs_verify),
            ("HEAD", "head:{file}", rf"{page}/resolve/{rev}/(?P<file>.+)", self.resolve),
            ("GET", "get:{file}", rf"{page}/resolve/{rev}/(?P<file>.+)", self.resolve),
            ("GET", "cdn:{file}", rf"/files/{oid}/(?P<file>.+)", self.cdn_file),
        ]
        for verb, what, pattern, handle in routes:
            if verb == method and (match := re.fullmatch(pattern, path)):
                parts = {k: unquote(v) for k, v in match.groupdict().items() if v is not None}

                async def call(
                    request: Request, handle: Any = handle, parts: dict[str, str] = parts
                ) -> Response:
                    request.scope["path_params"] = parts
                    return await handle(request, **parts)  # type: ignore[no-any-return]

                return what.format(**parts), call

        async def nothing(request: Request) -> Response:
            return JSONResponse({"error": "not served here"}, 404)

        return "other", nothing

    # --- who may do what

    def user(self, request: Request) -> tuple[str, str, set[str]]:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if token and token not in USERS:
            raise Refused(401, message="Invalid credentials in Authorization header")
        return USERS.get(token, ("", "none", set()))

    def repo(self, request: Request, *, write: bool = False, files: bool = False) -> Repo:
        parts = request.path_params
        name, role, orgs = self.user(request)
        member = parts["id"].split("/")[0] in orgs | {name}
        repo = self.repos.get((parts.get("kind", "models"), parts["id"]))
        if repo is None or (repo.private and not member):
            raise Refused(404 if name else 401, "RepoNotFound", "Repository not found")
        if files and repo.gated and not member and name not in repo.accepted:
            raise Refused(403 if name else 401, "GatedRepo", f"Access to model {repo.id} is restricted")
        if write and not (member and role == "write"):
            raise Refused(
                403 if name else 401, message="You don't have the rights to write to this repository"
            )
        return repo

    def at(self, repo: Repo, revision: str) -> str:
        sha = repo.find(revision)
        if sha is None:
            raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return sha

    # --- repos

    async def create(self, request: Request) -> Response:
        body = await request.json()
        name, role, orgs = self.user(request)
        owner = body["organization"] or name
        repo_id, kind = f"{owner}/{body['name']}", body.get("type", "model") + "s"
        prefix = "" if kind == "models" else f"{kind}/"
        answer = {"url": f"{self.endpoint}/{prefix}{repo_id}"}
        if role != "write" or owner not in orgs | {name}:
            raise Refused(
                403 if name else 401, message=f"You don't have the rights to create a repo under {owner!r}"
            )
        if (kind, repo_id) in self.repos:
            return JSONResponse(answer | {"error": "You already created this repo"}, 409)
        private = body.get("visibility") == "private" or body.get("private") is True
        self.add(repo_id, {".gitattributes": b"*.safetensors filter=lfs\n"}, kind=kind, private=private)
        return JSONResponse(answer)

    async def info(self, request: Request, id: str, rev: str = "main", kind: str = "models") -> Response:
        repo = self.repo(request)
        sha = self.at(repo, rev)
        siblings: list[dict[str, object]] = [{"rfilename": path} for path in repo.trees[sha]]
        if request.query_params.get("blobs"):
            for entry, blob in zip(siblings, repo.trees[sha].values(), strict=True):
                lfs = blob.lfs and blob.lfs | {"pointerSize": 134}
                entry |= {"size": blob.size, "blobId": blob.oid, **({"lfs": lfs} if lfs else {})}
        gated = "auto" if repo.gated else False
        return JSONResponse(
            {"id": id, "sha": sha, "private": repo.private, "gated": gated, "siblings": siblings}
        )

    async def tree(self, request: Request, id: str, rev: str, kind: str) -> Response:
        repo = self.repo(request)
        files = sorted(repo.trees[self.at(repo, rev)].items())
        start = int(request.query_params.get("cursor", 0))
        page = [
            {"type": "file", "path": path, "oid": blob.oid, "size": blob.size}
            | ({"lfs": blob.lfs | {"pointerSize": 134}} if blob.lfs else {})
            | ({"xetHash": blob.xet} if blob.xet else {})
            for path, blob in files[start : start + PAGE]
        ]
        more = f'<{self.endpoint}{request.url.path}?cursor={start + PAGE}>; rel="next"'
        return JSONResponse(page, headers={"Link": more} if start + PAGE < len(files) else {})

    async def list_refs(self, request: Request, id: str, kind: str) -> Response:
        repo = self.repo(request)

        def named(prefix: str) -> list[dict[str, str]]:
            found = [(ref, sha) for ref, sha in repo.refs.items() if ref.startswith(prefix)]
            return [{"name": ref.removeprefix(prefix), "ref": ref, "targetCommit": sha} for ref, sha in found]

        tags, pulls = named("refs/tags/"), named("refs/pr/")
        return JSONResponse(
            {"branches": named("refs/heads/"), "converts": [], "tags": tags, "pullRequests": pulls}
        )

    async def branch(self, request: Request, id: str, rev: str, kind: str) -> Response:
        repo, body = self.repo(request, write=True), await request.json()
        return self._new_ref(repo, f"refs/heads/{rev}", self.at(repo, body.get("startingPoint", "main")))

    async def tag(self, request: Request, id: str, rev: str, kind: str) -> Response:
        repo, body = self.repo(request, write=True), await request.json()
        return self._new_ref(repo, f"refs/tags/{body['tag']}", self.at(repo, rev))

    def _new_ref(self, repo: Repo, ref: str, sha: str) -> Response:
        if ref in repo.refs:
            raise Refused(409, message=f"{ref} exists")
        repo.refs[ref] = sha
        return JSONResponse({})

    async def variable(self, request: Request, id: str, kind: str) -> Response:
        repo, body = self.repo(request, write=True), await request.json()
        repo.variables[body["key"]] = body["value"]
        return JSONResponse({key: {"value": value} for key, value in repo.variables.items()})

    async def whoami(self, request: Request) -> Response:
        name, role, orgs = self.user(request)
        if not name:
            raise Refused(401, message="Invalid username or password.")
        auth = {"accessToken": {"displayName": name, "role": role}}
        return JSONResponse(
            {"type": "user", "name": name, "orgs": [{"name": org} for org in orgs], "auth": auth}
        )

    async def validate_yaml(self, request: Request) -> Response:
        errors = card_errors((await request.json())["content"])
        answer = {"errors": [{"message": message} for message in errors], "warnings": []}
        return JSONResponse(answer, 400 if errors else 200)

    # --- uploads

    async def preupload(self, request: Request, id: str, rev: str, kind: str) -> Response:
        create_pr = request.query_params.get("create_pr") == "1"
        repo = self.repo(request, write=not create_pr)
        tree = repo.trees[self.at(repo, rev)]
        files = []
        for entry in (await request.json())["files"]:
            lfs = entry["path"].endswith(LFS_SUFFIXES) or entry["size"] > 10_000_000
            there = {"oid": tree[entry["path"]].etag} if entry["path"] in tree else {}
            mode = "lfs" if lfs else "regular"
            files.append({"path": entry["path"], "uploadMode": mode, "shouldIgnore": False, **there})
        return JSONResponse({"files": files})

    async def lfs_batch(self, request: Request, id: str, kind: str = "models") -> Response:
        self.repo(request)  # whoever may not commit may still open a pull request
        objects = []
        for wanted in (await request.json())["objects"]:
            oid, size = wanted["oid"], wanted["size"]
            upload: dict[str, object] = {"href": f"{self.cdn}/lfs/{oid}?X-Amz-Signature=secret"}
            if self.part_size:
                parts = range(1, -(-size // self.part_size) + 1)
                urls = {str(i): f"{self.cdn}/lfs/{oid}/{i}?X-Amz-Signature=secret" for i in parts}
                header = {"chunk_size": str(self.part_size), **urls}
                upload = {"href": f"{self.endpoint}/lfs/{oid}", "header": header}
            actions = {"upload": upload, "verify": {"href": f"{self.endpoint}/lfs/{oid}/verify"}}
            objects.append({"oid": oid, "size": size} | ({} if oid in self.objects else {"actions": actions}))
        return JSONResponse({"transfer": "multipart" if self.part_size else "basic", "objects": objects})

    async def lfs_put(self, request: Request, oid: str, part: str = "") -> Response:
        data = await request.body()
        if not part and hashlib.sha256(data).hexdigest() != oid:
            raise Refused(400, message="the body does not have the hash that it was announced with")
        self.objects[f"{oid}/{part}" if part else oid] = data
        return Response(headers={"ETag": f'"{hashlib.md5(data).hexdigest()}"'})

    async def lfs_complete(self, request: Request, oid: str) -> Response:
        parts = [self.objects.pop(f"{oid}/{part['partNumber']}") for part in (await request.json())["parts"]]
        if hashlib.sha256(b"".join(parts)).hexdigest() != oid:
            raise Refused(400, message="the parts do not have the hash that they were announced with")
        self.objects[oid] = b"".join(parts)
        return JSONResponse({})

    async def lfs_verify(self, request: Request, oid: str) -> Response:
        self.user(request)
        return JSONResponse({}, 200 if oid in self.objects else 404)

    async def commit(self, request: Request, id: str, rev: str, kind: str) -> Response:
        create_pr = request.query_params.get("create_pr") == "1"
        repo = self.repo(request, write=not create_pr)
        parent = self.at(repo, rev)
        tree, message, description = dict(repo.trees[parent]), "", ""
        for line in (await request.body()).splitlines():
            item = json.loads(line)
            key, value = item["key"], item["value"]
            if key == "header":
                message, description = value["summary"], value.get("description") or ""
                if value.get("parentCommit") not in (None, parent):
                    raise Refused(412, message="A commit has happened since. Please refresh and try again.")
            elif key == "file":
                tree[value["path"]] = self._store(
                    value["path"], base64.b64decode(value["content"]), lfs=False
                )
            elif key == "lfsFile":
                tree[value["path"]] = self._uploaded(value["oid"], value["size"])
            elif key == "deletedFile":
                del tree[value["path"]]
        if create_pr:
            number = 1 + sum(ref.startswith("refs/pr/") for ref in repo.refs)
            sha = repo.commit(f"refs/pr/{number}", tree, message)
            pull = {"pullRequestUrl": f"{self.endpoint}/{id}/discussions/{number}"}
        else:
            if f"refs/heads/{rev}" not in repo.refs:
                raise Refused(404, "RevisionNotFound", f"no branch {rev}")
            sha, pull = repo.commit(f"refs/heads/{rev}", tree, message), {}
        repo.descriptions[sha] = description
        return JSONResponse({"commitUrl": f"{self.endpoint}/{id}/commit/{sha}", "commitOid": sha, **pull})

    def _uploaded(self, oid: str, size: int) -> Blob:
        if oid in self.objects:
            return _lfs_blob(oid, size)
        xet = next((file for file, sha256 in _xet_files(Path(self.folder.name)) if sha256 == oid), None)
        if xet is None:
            raise Refused(422, message=f"LFS pointer to {oid}, which was never uploaded")
        return _lfs_blob(oid, size, xet)

    async def xet_token(self, request: Request, id: str, role: str, rev: str, kind: str) -> Response:
        self.repo(request, write=role == "write", files=True)
        answer = {"casUrl": f"local://{self.folder.name}", "accessToken": "xet-secret", "exp": 4_000_000_000}
        headers = {"X-Xet-Cas-Url": answer["casUrl"], "X-Xet-Access-Token": "xet-secret"}
        return JSONResponse(answer, headers={**headers, "X-Xet-Token-Expiration": str(answer["exp"])})

    # --- downloads

    async def resolve(self, request: Request, id: str, rev: str, file: str, kind: str = "models") -> Response:
        repo = self.repo(request, files=True)
        sha = self.at(repo, rev)
        if file not in repo.trees[sha]:
            raise Refused(404, "EntryNotFound", f"{file} does not exist", X_Repo_Commit=sha)
        blob = repo.trees[sha][file]
        headers = {"X-Repo-Commit": sha, "ETag": f'"{blob.etag}"'}
        if blob.sha256 is None:
            return self._body(request, self.objects[blob.oid], headers)
        headers |= {"X-Linked-Etag": f'"{blob.sha256}"', "X-Linked-Size": str(blob.size)}
        if blob.xet:
            token = f"{self.endpoint}/api/{repo.kind}/{id}/xet-read-token/{sha}"
            headers |= {"X-Xet-Hash": blob.xet, "Link": f'<{token}>; rel="xet-auth"'}
        url = f"{self.cdn}/files/{blob.sha256}/{quote(file)}?X-Amz-Signature=secret"
        return RedirectResponse(url, 302, headers)

    async def cdn_file(self, request: Request, oid: str, file: str) -> Response:
        return self._body(request, self.objects[oid], {"ETag": f'"{oid}"'})

    def _body(self, request: Request, data: bytes, headers: dict[str, str]) -> Response:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
        if wanted is None:
            return Response(data, headers=headers, media_type="application/octet-stream")
        first, last = int(wanted[1]), min(int(wanted[2] or len(data)), len(data) - 1)
        if first >= len(data):
            raise Refused(416, message="range", Content_Range=f"bytes */{len(data)}")
        headers |= {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
        return Response(data[first : last + 1], 206, headers)


async def _send(response: Response, kind: str | None, scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Send a response, spoiled as the fault says."""
    body = bytearray(response.body)
    if kind == "etag":
        for name in {"etag", "x-linked-etag"} & set(response.headers):
            response.headers[name] = '"' + "e" * (len(response.headers[name]) - 2) + '"'
    elif kind == "corrupt" and body:
        body[len(body) // 2] ^= 1
        response.body = bytes(body)
    if kind not in ("stall", "halt", "truncated", "reset"):
        await response(scope, receive, send)
        return
    if kind != "stall" and scope["method"] != "HEAD":
        start = {
            "type": "http.response.start",
            "status": response.status_code,
            "headers": response.raw_headers,
        }
        await send(start)
        await send({"type": "http.response.body", "body": bytes(body[: len(body) // 2]), "more_body": True})
    transport = _TRANSPORTS[scope["client"][0], scope["client"][1]]
    if kind == "truncated":
        transport.close()
    elif kind == "reset":  # without lingering, a close is a reset
        linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        transport.abort()
    else:
        while (await receive())["type"] != "http.disconnect":
            pass


def _git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _lfs_blob(sha256: str, size: int, xet: str | None = None) -> Blob:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n"
    return Blob(_git_hash(pointer.encode()), size, sha256, xet)


def _xet_files(folder: Path) -> list[tuple[str, str]]:
    """(Xet hash, SHA-256) of the files in the shards of a CAS folder: 48-byte records behind 48 bytes."""

    def words(data: bytes) -> str:
        return "".join(f"{word:016x}" for word in struct.unpack("<4Q", data))

    files = []
    for shard in folder.rglob("shards/*.mdb"):
        data, at = shard.read_bytes(), 48
        while data[at : at + 32] != b"\xff" * 32:
            flags, entries = struct.unpack("<II", data[at + 32 : at + 40])
            name, at = words(data[at : at + 32]), at + 48 * (1 + entries * (2 if flags >> 31 else 1))
            if flags >> 30 & 1:
                files.append((name, words(data[at : at + 32])))
                at += 48
    return files


def card_errors(content: str) -> list[str]:
    """What the Hub objects to in a model card's front matter, as far as our cards could go wrong."""
    block = REGEX_YAML_BLOCK.search(content)
    if block is None:
        return []
    try:
        data = yaml.safe_load(block[2])
    except yaml.YAMLError as e:
        return [f"not YAML: {e}"]
    if not isinstance(data, dict):
        return ["the metadata is not a mapping"]
    errors = [f'"{key}" must be a string' for key in ("license", "library_name", "pipeline_tag", "title")
              if not isinstance(data.get(key, ""), str)]  # fmt: skip
    for key in ("tags", "datasets", "models"):
        values = data.get(key, [])
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            errors.append(f'"{key}" must be an array of strings')
    if not re.fullmatch(r"[a-z0-9.-]*", str(data.get("license", ""))):
        errors.append('"license" must be one of [apache-2.0, mit, …]')
    for entry in data.get("model-index", []):
        for result in entry.get("results", [{}]):
            fields = result.get("task", {}).get("type"), result.get("dataset", {}).get("type")
            metrics = result.get("metrics", [{}])
            if not all(fields) or not all("type" in metric and "value" in metric for metric in metrics):
                errors.append('"model-index[0].results" is incomplete')
    return errors


if __name__ == "__main__":
    with HubServer() as server:
        print(f"HF_ENDPOINT={server.endpoint}  HF_TOKEN={WRITER}", flush=True)
        threading.Event().wait()
