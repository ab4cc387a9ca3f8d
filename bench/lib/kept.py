"""The figures that earlier runs on such a machine have left in runs/."""

import glob
import json
import os


def earlier(directory, machine):
    """What was measured last by that name, and where it stands; newest file first (their names begin with the date)."""
    figures = {}
    for path in sorted(glob.glob(os.path.join(directory, "*.json")), reverse=True):
        with open(path) as file:
            document = json.load(file)
        if any(document["machine"][key] != machine[key] for key in ("cpu", "cores")):
            continue
        # Of a database of another size than usual.
        if document.get("arguments", {}).get("scale"):
            continue
        values = {**document["facts"], **{goal["what"]: goal["value"] for goal in document["goals"]}}
        for what, value in values.items():
            figures.setdefault(what, {"value": value, "run": os.path.basename(path)})
    return figures


def told(figures, run):
    """The same figures of this run beside them; what nothing was kept of is left out."""
    now = {**run.facts, **{goal["what"]: goal["value"] for goal in run.goals}}
    beside = {what: {"now": value, **figures[what]} for what, value in now.items()
              if what in figures and not what.startswith("the part")}
    if beside:
        print("== beside the newest kept figure of that name on such a machine")
    for what, pair in beside.items():
        print(f"{what:<84} {pair['now']:9.2f}  was {pair['value']:9.2f} in {pair['run']}")
    return beside
