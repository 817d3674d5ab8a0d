"""Fetching open data, against a server on this machine and folders: resuming, checksums, mirrors, and never asking twice."""

import hashlib
import json
import re
import tarfile
import threading
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest

from jet_anomaly.data.datasets import DATASETS, DataSet, dataset_table
from jet_anomaly.data.fetch import Resume, _unpacked, fetch
from jet_anomaly.data.formats import FORMATS

unpacks = pytest.mark.skipif(
    not hasattr(tarfile, "data_filter"), reason="Python before 3.11.4 has no filter for archives"
)

BODY = bytes(range(256)) * 40  # 10 240 bytes
MD5, SHA = hashlib.md5(BODY).hexdigest(), hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def site():
    "A server with `a.bin`, a description in `record`, a log, and switches: where to hang up, whether it knows ranges, its tag."
    state = SimpleNamespace(
        files={"a.bin": BODY}, log=[], hang_up=[], ranges=True, tag='"1"', checksum=f"md5:{MD5}"
    )

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_GET(self):
            name, asked = self.path.strip("/").split("?")[0], self.headers.get("Range", "")
            state.log.append((name, asked))
            if name == "record":
                return self.answer(
                    json.dumps({"files": [{"key": "a.bin", "checksum": state.checksum}]}).encode()
                )
            if name not in state.files:
                return self.send_error(404)
            start = (
                int(re.match(r"bytes=(\d+)-", asked)[1])
                if asked and state.ranges and self.headers.get("If-Range", state.tag) == state.tag
                else 0
            )
            if start >= len(state.files[name]):
                return self.send_error(416)
            self.answer(
                state.files[name][start:],
                206 if start else 200,
                state.hang_up.pop(0) if state.hang_up else None,
            )

        def answer(self, body, status=200, only=None):
            self.send_response(status)
            self.send_header("Content-Length", len(body))
            if state.tag:
                self.send_header("ETag", state.tag)
            self.end_headers()
            self.wfile.write(body[:only])
            self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}/"
    state.stop = lambda: (server.shutdown(), server.server_close())
    yield state
    state.stop()


def data(site, known=f"md5:{MD5}", api=False, **files):
    return DataSet(
        "toy",
        "for tests",
        {"a.bin": known} | files,
        "10 kB",
        "numpy",
        "nobody",
        base=site.url,
        api=site.url + "record" if api else "",
    )


def test_a_broken_download_goes_on_where_it_stopped(site, tmp_path):
    site.hang_up[:] = [1000, 2000]
    (path,) = fetch(data(site), folder=tmp_path, progress=False)
    assert path.read_bytes() == BODY and [r for _, r in site.log] == [
        "",
        "bytes=1000-",
        "bytes=3000-",
    ]
    assert sorted(p.name for p in path.parent.iterdir()) == ["a.bin", "a.bin.json"]


def test_it_goes_on_in_another_process_too(site, tmp_path):
    site.hang_up[:] = [4000]
    with pytest.raises(FileNotFoundError, match="4000 of 10240 bytes"):
        fetch(data(site), folder=tmp_path, progress=False, attempts=1)
    assert (tmp_path / "toy/.a.bin.part").stat().st_size == 4000 and not (
        tmp_path / "toy/a.bin"
    ).exists()
    assert fetch(data(site), folder=tmp_path, progress=False)[0].read_bytes() == BODY and site.log[
        -1
    ] == ("a.bin", "bytes=4000-")


@pytest.mark.parametrize("change", ["no ranges", "another tag", "weak tag", "no tag", "too long"])
def test_servers_that_cannot_go_on(site, tmp_path, change):
    if change in ("weak tag", "no tag"):
        site.tag = {"weak tag": 'W/"1"', "no tag": None}[change]
    site.hang_up[:] = [4000]
    with pytest.raises(FileNotFoundError):
        fetch(data(site), folder=tmp_path, progress=False, attempts=1)
    if change == "no ranges":
        site.ranges = False
    if change == "another tag":
        site.tag = '"2"'
    if change == "too long":
        (tmp_path / "toy/.a.bin.part").write_bytes(BODY * 2)
    assert fetch(data(site), folder=tmp_path, progress=False)[0].read_bytes() == BODY


def test_a_cached_file_asks_nobody(site, tmp_path):
    (path,) = fetch(data(site, known=None, api=True), folder=tmp_path, progress=False)
    asked = len(site.log)
    site.stop()
    for verify in (False, True):
        assert fetch(data(site, known=None, api=True), folder=tmp_path, verify=verify) == [path]
    assert len(site.log) == asked


def test_the_record_is_asked_for_the_checksum(site, tmp_path):
    (path,) = fetch(data(site, known=None, api=True), folder=tmp_path, progress=False)
    assert json.loads((tmp_path / "toy/a.bin.json").read_text()) == {
        "sha256": SHA,
        "bytes": len(BODY),
        "origin": site.url + "a.bin",
        "checked": f"md5:{MD5}",
    }
    site.checksum = "md5:" + "0" * 32
    with pytest.raises(FileNotFoundError, match="does not match the checksum.*By hand"):
        fetch(data(site, known=None, api=True), folder=tmp_path / "new", progress=False)
    assert not (tmp_path / "new/toy/a.bin").exists()


def test_without_a_published_checksum_the_first_is_pinned(site, tmp_path):
    with pytest.warns(UserWarning, match=f"sha256 {SHA} is pinned"):
        (path,) = fetch(data(site, known=None), folder=tmp_path, progress=False)
    path.write_bytes(BODY[::-1])
    assert fetch(data(site, known=None), folder=tmp_path) == [
        path
    ]  # of the right size: only `verify` looks inside
    with pytest.raises(ValueError, match=f"expected {SHA}"):
        fetch(data(site, known=None), folder=tmp_path, verify=True)
    path.write_bytes(BODY + b"x")
    with pytest.raises(ValueError, match="10241 bytes, 10240 were fetched"):
        fetch(data(site, known=None), folder=tmp_path)


def test_mirrors_come_first_and_a_bad_one_is_passed_over(site, tmp_path, monkeypatch):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/a.bin").write_bytes(b"other")
    (tmp_path / "good/toy").mkdir(parents=True)
    (tmp_path / "good/toy/a.bin").write_bytes(BODY)
    fetch(data(site), folder=tmp_path / "1", mirrors=[tmp_path / "bad", tmp_path / "good"])
    monkeypatch.setenv("JET_ANOMALY_MIRROR", f"{tmp_path / 'none'};{tmp_path / 'good'}")
    fetch(data(site), folder=tmp_path / "2")
    assert not site.log
    monkeypatch.delenv("JET_ANOMALY_MIRROR")
    gone = DataSet("toy", "", {"a.bin": f"md5:{MD5}"}, "", "numpy", "", base="http://127.0.0.1:9/")
    assert (
        fetch(gone, folder=tmp_path / "3", mirrors=[site.url], progress=False)[0].read_bytes()
        == BODY
    )


def test_a_file_put_there_by_hand(site, tmp_path):
    site.stop()
    with pytest.raises(FileNotFoundError) as error:
        fetch(data(site), folder=tmp_path, progress=False, attempts=1)
    assert all(
        t in str(error.value)
        for t in ("By hand", "a.bin", MD5, str(tmp_path / "toy/a.bin"), "mirrors")
    )
    path = tmp_path / "toy/a.bin"
    path.write_bytes(BODY[:-1])
    with pytest.raises(ValueError, match=f"expected {MD5}"):
        fetch(data(site), folder=tmp_path)
    path.write_bytes(BODY)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fetch(data(site), folder=tmp_path) == [path]
    path.with_name("a.bin.json").unlink()
    with pytest.warns(UserWarning, match="put there by hand"):
        fetch(data(site, known=None), folder=tmp_path)


@unpacks
def test_archives_are_unpacked_once(site, tmp_path):
    import io
    import tarfile

    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for name in ("JetClass/b.root", "JetClass/a.root"):
            info = tarfile.TarInfo(name)
            info.size = 3
            tar.addfile(info, io.BytesIO(b"abc"))
    site.files["x.tar"] = raw.getvalue()
    toy = DataSet(
        "toy",
        "",
        {"x.tar": "md5:" + hashlib.md5(raw.getvalue()).hexdigest()},
        "",
        "jetclass",
        "",
        base=site.url,
    )
    paths = fetch(toy, folder=tmp_path, progress=False)
    assert [p.name for p in paths] == ["a.root", "b.root"] and fetch(toy, folder=tmp_path) == paths
    (tmp_path / "toy/x.tar.untar/.complete").unlink()
    paths[0].unlink()  # broken off while unpacking
    assert fetch(toy, folder=tmp_path) == paths and len(site.log) == 1


def test_a_file_too_large_for_the_disk(site, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(OSError, match="needs 10,240 bytes"):
        fetch(data(site), folder=tmp_path, progress=False)
    monkeypatch.undo()
    assert fetch(data(site), folder=tmp_path, progress=False)[0].read_bytes() == BODY


def test_unknown_names(site):
    with pytest.raises(KeyError, match="known: toptagging"):
        fetch("toptag")
    with pytest.raises(KeyError, match="it has a.bin"):
        fetch(data(site), "*.h5")


def test_the_registry_is_in_order():
    for d in DATASETS.values():
        assert (
            d.format in FORMATS
            and d.cite
            and d.size
            and d.files
            and d.home.startswith("https://")
            and all(d.address(f).startswith("https://") for f in d.files)
        )
        assert all(
            h is None or re.fullmatch(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}", h)
            for h in d.files.values()
        )
    assert dataset_table().count("\n") == len(DATASETS) + 1


def test_the_tag_of_a_part_is_gone_with_it(site, tmp_path):
    Resume(tmp_path / "p", progress=False).retrieve(site.url + "a.bin", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@unpacks
@pytest.mark.parametrize("name", ["../outside.root", "/outside.root"])
def test_an_archive_that_would_leave_its_folder_is_refused(site, tmp_path, name):
    import io
    import tarfile

    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, name
        tar.addfile(link)
    archive = tmp_path / "x.tar"
    archive.write_bytes(raw.getvalue())
    with pytest.raises(ValueError, match="trusted"):
        _unpacked(archive)
    assert [p.name for p in tmp_path.iterdir()] == ["x.tar"]


def test_a_cache_that_cannot_be_made_names_the_variable(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OSError, match="JET_ANOMALY_CACHE"):
        fetch("toptagging", folder=tmp_path / "file")
