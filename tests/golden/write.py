"""Write the golden five-step traces anew, after a change that is meant to change what is computed."""

import importlib.util
import json
from pathlib import Path

here = Path(__file__).parent
spec = importlib.util.spec_from_file_location("learning", here.parent / "contract" / "test_learning.py")
assert spec is not None and spec.loader is not None
learning = importlib.util.module_from_spec(spec)
spec.loader.exec_module(learning)

traces = {name: learning.five_steps(name) for name in learning.RECIPES}
(here / "five_steps.json").write_text(json.dumps(traces, indent=1) + "\n")
