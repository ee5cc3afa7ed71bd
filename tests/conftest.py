"""What holds for every test. Shapes are checked, not narrated: nn's jaxtyping annotations hold while any runs."""

import torch
from hypothesis import settings
from jaxtyping import install_import_hook

# What a busy machine takes for one example says nothing of the code.
settings.register_profile("house", deadline=None)
settings.load_profile("house")

# The models of the tests are too small for a second thread to pay, and its waiting slows everything beside it.
torch.set_num_threads(1)

FORWARDS = ["ourospec.nn", "ourospec.families.dense_lm.model", "ourospec.families.adaptive_lm.model"]
# As in PEP 484, and as pyright has it, an int serves where a float is asked for.
install_import_hook(FORWARDS, "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")
