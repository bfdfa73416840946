"""What pytest leaves alone: the examples in modules that need PyTorch, where there is none."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("torch") else ["src/zeropoint/autograd/*", "src/zeropoint/torch/*"]
