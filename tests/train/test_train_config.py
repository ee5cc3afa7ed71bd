"""Settings of the trainer."""

import pytest
from pydantic import ValidationError

from ourospec.train.config import TrainConfig


def test_micro_batches_have_to_fill_the_batch() -> None:
    with pytest.raises(ValidationError, match=r"micro_batch_size \(3\) must divide batch_size \(8\)"):
        TrainConfig(batch_size=8, micro_batch_size=3)


def test_one_checkpoint_is_not_enough() -> None:
    with pytest.raises(ValidationError, match="keep_checkpoints"):
        TrainConfig(keep_checkpoints=1)
