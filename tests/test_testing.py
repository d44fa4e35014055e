"""The pytest plugin, in fresh projects of somebody else: a pytest of their own in a folder of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Callable

import pytest

import fluvio_cffi.sync
from fluvio_cffi.devserver import DevServer
from tests.support import ROOT, environment, run_program

# The status and everything that was printed.
RunPytest = Callable[..., tuple[int, str]]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An empty project that has this package installed, as far as pytest can see."""
    found = re.search(r"\[project\.entry-points\.pytest11\]\n(.+)\n", (ROOT / "pyproject.toml").read_text())
    assert found, "pyproject.toml declares the plugin"
    metadata = tmp_path / "installed" / "fluvio_cffi-0.1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: fluvio-cffi\nVersion: 0.1.0\n")
    (metadata / "entry_points.txt").write_text("[pytest11]\n" + found.group(1).replace('"', "") + "\n")
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


@pytest.fixture
def run_pytest(project: Path) -> RunPytest:
    def run(*arguments: str, **variables: str) -> tuple[int, str]:
        env = environment()
        for name in ("FLUVIO_TEST_ENDPOINT", "PYTEST_ADDOPTS", "PYTEST_PLUGINS"):
            env.pop(name, None)
        env["PYTHONPATH"] += os.pathsep + str(project.parent / "installed")
        env.update(variables)
        fixed = ["-W", "error", "-p", "no:cacheprovider", "--strict-markers", "-rs"]
        result = subprocess.run(
            [sys.executable, "-m", "pytest", *fixed, *arguments],
            cwd=project,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        return result.returncode, result.stdout

    return run


def write(project: Path, name: str, source: str) -> None:
    (project / name).write_text(textwrap.dedent(source))


USES = """
    import fluvio_cffi
    import fluvio_cffi.sync
    import pytest
    from fluvio_cffi import Offset

    pytestmark = pytest.mark.fluvio_topic(partitions=2)
    seen = []

    def partitions(endpoint, name):
        with fluvio_cffi.sync.connect(endpoint) as client:
            return {topic.name: topic.partitions for topic in client.admin.topics.list()}.get(name)

    @pytest.mark.fluvio_topic(partitions=3)
    def test_the_nearest_marker_counts(fluvio_endpoint, fluvio_topic):
        assert partitions(fluvio_endpoint, fluvio_topic) == 3
        assert fluvio_topic.startswith("test-the-nearest-marker-counts-")
        seen.append(fluvio_topic)

    def test_another_test_has_another_topic(fluvio_endpoint, fluvio_topic):
        assert partitions(fluvio_endpoint, fluvio_topic) == 2
        assert fluvio_topic not in seen
        assert partitions(fluvio_endpoint, seen[0]) is None, "it was deleted"

    @pytest.fixture(params=["asyncio", "trio"])
    def anyio_backend(request):
        return request.param

    @pytest.mark.anyio
    @pytest.mark.parametrize("text", ["Ünï cödé / " * 20])
    async def test_async(fluvio_endpoint, fluvio_topic, text):
        async with fluvio_cffi.connect(fluvio_endpoint) as client:
            async with client.producer(fluvio_topic) as producer:
                await producer.send(b"value", partition=1)
            async with client.consumer(fluvio_topic, start=Offset.beginning()) as records:
                assert (await records.receive()).value == b"value"

    def test_it_may_delete_its_topic(fluvio_endpoint, fluvio_topic):
        with fluvio_cffi.sync.connect(fluvio_endpoint) as client:
            client.admin.topics.delete(fluvio_topic)
    """


def test_a_server_for_the_session_and_a_topic_for_each_test(project: Path, run_pytest: RunPytest) -> None:
    write(project, "test_uses.py", USES)
    write(
        project,
        "test_zz_other_module.py",
        """
        import test_uses

        def test_one_server(fluvio_server, fluvio_endpoint):
            assert fluvio_server.endpoint == fluvio_endpoint
            assert test_uses.seen
        """,
    )
    status, printed = run_pytest()
    assert status == 0, printed
    assert "6 passed" in printed


def test_a_named_cluster_is_used_and_left_clean(project: Path, run_pytest: RunPytest) -> None:
    write(project, "test_uses.py", USES)
    write(project, "test_disturbs.py", "def test_kill(fluvio_server):\n    fluvio_server.kill()\n")
    with DevServer() as server:
        with fluvio_cffi.sync.connect(server.endpoint) as client:
            before = {topic.name for topic in client.admin.topics.list()}
        # With this executable, no server of the plugin's own could start.
        status, printed = run_pytest(FLUVIO_TEST_ENDPOINT=server.endpoint, FLUVIO_DEVSERVER="/nowhere")
        assert status == 0, printed
        assert "5 passed, 1 skipped" in printed
        assert "FLUVIO_TEST_ENDPOINT names another one" in printed
        with fluvio_cffi.sync.connect(server.endpoint) as client:
            assert {topic.name for topic in client.admin.topics.list()} == before


def test_options_of_the_server_are_configured(project: Path, run_pytest: RunPytest) -> None:
    write(project, "pytest.ini", "[pytest]\nfluvio_server_arguments = --spus 2\n")
    write(
        project,
        "test_spus.py",
        """
        import pytest

        @pytest.mark.fluvio_topic(assignment=[[5002]])
        def test_second_spu(fluvio_topic):
            pass
        """,
    )
    status, printed = run_pytest("--strict-config")
    assert status == 0, printed
    status, printed = run_pytest("-o", "fluvio_server_arguments=--spus 0")
    assert status == 1, printed
    assert "--spus" in printed, "what the server said is shown"


def test_a_wrong_marker_is_named(project: Path, run_pytest: RunPytest) -> None:
    write(
        project,
        "test_wrong.py",
        """
        import pytest

        @pytest.mark.fluvio_topic(3)
        def test_positional(fluvio_topic):
            pass

        @pytest.mark.fluvio_topic(partitons=3)
        def test_misspelt(fluvio_topic):
            pass
        """,
    )
    status, printed = run_pytest()
    assert status == 1, printed
    assert "takes keyword arguments only" in printed
    assert "partitons" in printed
    status, printed = run_pytest("--markers")
    assert "@pytest.mark.fluvio_topic(**options)" in printed


def test_who_does_not_use_it_does_not_notice(project: Path, run_pytest: RunPytest) -> None:
    write(
        project,
        "test_nothing.py",
        """
        import sys

        def test_nothing():
            # anyio has a plugin of its own, which loads itself; PyPy is made with cffi.
            pypy = sys.implementation.name == "pypy"
            ours = {"fluvio_cffi"} if pypy else {"fluvio_cffi", "cffi", "_cffi_backend"}
            assert not ours & set(sys.modules)
        """,
    )
    for arguments in ([], ["-p", "fluvio_cffi_plugins.testing"], ["-p", "no:fluvio_cffi_plugins.testing"]):
        status, printed = run_pytest(*arguments, FLUVIO_DEVSERVER="/nowhere", FLUVIO_CFFI_LIBRARY="/nowhere")
        assert status == 0, printed
    status, printed = run_pytest("-p", "no:fluvio_cffi_plugins.testing", "--fixtures")
    assert "fluvio_topic" not in printed
    status, printed = run_pytest("--fixtures")
    assert "fluvio_topic" in printed


def test_pytest_is_not_needed_otherwise() -> None:
    status, printed, errors = run_program(
        """
        import sys
        import fluvio_cffi.devserver, fluvio_cffi.sync
        print("pytest" in sys.modules, "fluvio_cffi_plugins.testing" in sys.modules)
        """
    )
    assert (status, printed) == (0, "False False\n"), errors
