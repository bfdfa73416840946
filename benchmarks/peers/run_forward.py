"""The floor: load the float network, run the samples through it, and quantize nothing."""

from __future__ import annotations

from protocol import Cycled, Job, forward, main


def run(job: Job, feeds: Cycled) -> None:
    """Run the samples in a session of two threads."""
    forward(job.model, feeds)


if __name__ == "__main__":
    main(run)
