"""The Criterion benches: the scan of a segment, a frame each way, the reading of a tar stream."""

import glob
import json
import os
import subprocess

PLACE = "criterion"


def measure_them(here, directory):
    """Builds and runs them, as whoever owns the sources; Criterion's own report goes to stdout."""
    package = os.path.join(here, "criterion")
    target = os.environ.get("CARGO_TARGET_DIR", os.path.join(os.path.dirname(here), "target"))
    env = {**os.environ, "CARGO_TARGET_DIR": target, "CRITERION_HOME": os.path.join(directory, PLACE)}
    subprocess.run(["cargo", "bench", "--locked", "--quiet"], cwd=package, env=env, check=True)


def told(run):
    """What Criterion has estimated, into the raw figures."""
    for path in sorted(glob.glob(os.path.join(run.directory, PLACE, "**/new/estimates.json"), recursive=True)):
        with open(path) as file:
            median = json.load(file)["median"]
        with open(os.path.join(os.path.dirname(path), "benchmark.json")) as file:
            bench = json.load(file)
        seconds = median["point_estimate"] / 1e9
        (unit, amount), = bench["throughput"].items()
        what = {"Bytes": "MB/s", "Elements": "million files/s"}[unit]
        run.fact(f"{bench['full_id']}: {what}", amount / 1e6 / seconds)
        run.keep(bench["full_id"], None, [{"wall": seconds, "interval": [
            median["confidence_interval"][end] / 1e9 for end in ("lower_bound", "upper_bound")]}])
