"""What every test shares: eight simulated devices, strict ranks, our warnings as errors, a compilation cache."""

import gc
import importlib.metadata
import importlib.util
import os
import pathlib

FLAGS = "--xla_force_host_platform_device_count=8 --xla_cpu_collective_call_terminate_timeout_seconds=300"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# eight devices that wait for each other in several collectives at once need a thread each: with a pool of two cores
# they wait for ever, and XLA ends the process after 40 s
os.environ.setdefault("NPROC", "64")

import jax  # noqa: E402  (the flags above must stand before the first import)
import pytest  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", str(pathlib.Path.home() / ".cache" / "supcon_jax" / "tests"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)

# Tests run thousands of small programs once each: compiling them is most of the time, so they are compiled with little
# optimisation. Learning gates train what users run, in processes of their own: there they are compiled as usual.
QUICK = ["--xla_cpu_parallel_codegen_split_count=1"]
if tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 11):  # later ones know no such flag
    QUICK.append("--xla_cpu_use_fusion_emitters=false")

gc.set_threshold(50_000, 20, 50)  # what is compiled stays: looking through it again and again finds nothing to free


def pytest_configure(config):
    if "long" not in config.option.markexpr.replace("not long", ""):
        os.environ["XLA_FLAGS"] = " ".join([os.environ["XLA_FLAGS"], *QUICK])  # read when the first program is compiled
        jax.config.update("jax_disable_most_optimizations", True)


def pytest_collection_modifyitems(config, items):
    """What is marked long is not slow, whatever else marks it. The file that takes longest comes first, so that all processes
    end at about the same time."""
    if config.option.markexpr == "slow":
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("long")])
        items[:] = [item for item in items if not item.get_closest_marker("long")]
    items.sort(key=lambda item: item.path.name != "test_every_gan.py")


def pytest_addoption(parser):
    """`--fixtures DIR`: directory of reference numbers for tests/golden. Takes the name from pytest's own listing of
    fixtures, which stays there as --funcargs."""
    listing = parser.optparser._option_string_actions.pop("--fixtures", None)
    if listing is not None:
        listing.option_strings.remove("--fixtures")
    parser.addoption("--need", action="append", default=[], metavar="MODULE", help="fail where its tests would be skipped")
    parser.addoption("--fixtures", dest="fixtures", default=None, metavar="DIR", help="reference numbers for tests/golden")


@pytest.fixture(scope="session", autouse=True)
def shared_folder(tmp_path_factory, request):
    """Tells tests/runs.py where the processes of this run keep what they share; pytest clears it away some runs later."""
    import runs

    own = tmp_path_factory.getbasetemp()
    runs.SHARED[:] = [own.parent if hasattr(request.config, "workerinput") else own]


@pytest.fixture(scope="session")
def need(request):
    """need(module, remedy): skips the test where an optional module is not installed, or with `--need MODULE` fails it."""

    def need(module, remedy):
        if importlib.util.find_spec(module) is None:
            refuse = pytest.fail if module in request.config.getoption("--need") else pytest.skip
            refuse(f"{module} is not installed: {remedy}")

    return need
