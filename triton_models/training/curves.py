"""The curves of a training run: its losses and its validated recall by step."""

from pathlib import Path

LOSSES = {name: name for name in ("pairs", "spread", "local")}
RECALLS = {"recall": "recall of strong copies at 1e-4", "recall_sources": "the same, of sources held out"}


def plot(history: list[dict[str, float]], file: Path) -> None:
    """Plot `history`, a row for each time that a run was measured. A row may lack some of the numbers."""
    import matplotlib  # noqa: PLC0415 (slow to import)

    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    figure, axes = pyplot.subplots(1, 2, figsize=(12, 4))
    for axis, labels, marker in ((axes[0], LOSSES, ""), (axes[1], RECALLS, "o")):
        for number, (name, label) in enumerate(labels.items()):
            rows = [row for row in history if name in row]
            steps, values = [row["step"] for row in rows], [row[name] for row in rows]
            if rows:
                axis.plot(steps, values, color=f"C{number}", marker=marker, label=label)
        axis.set_xlabel("step")
        axis.legend()
    figure.tight_layout()
    figure.savefig(file)
    pyplot.close(figure)
