from __future__ import annotations

import pytest
from workbench.callbacks.effective import check_epoch, describe

from workbench.errors import UserError


def test_what_changed_against_one_device_is_said():
    text = describe(batch=16, processes=4, accumulated=2, batches=25, rates=[0.002])
    assert "16 x 4 processes x 2 accumulated = 128 images a step, 8 times" in text
    assert "13 steps an epoch instead of about 100" in text
    assert "0.002, as configured, not scaled; the linear rule would say 0.016, the square-root rule 0.00566" in text


def test_what_there_is_one_of_is_left_out():
    text = describe(batch=8, processes=1, accumulated=3, batches=float("inf"), rates=[0.1, 0.2])
    assert text.startswith("Batch: 8 x 3 accumulated = 24 images a step, 3 times those of one device.\n")
    assert "0.1, 0.2, as configured" in text


def test_an_epoch_without_a_batch_for_each_process_is_refused():
    check_epoch(pictures=8, repeats=4, batch=16, processes=2)
    with pytest.raises(UserError, match="31 crops, less than one batch for each of the 2 processes") as caught:
        check_epoch(pictures=31, repeats=1, batch=16, processes=2)
    assert "--data.batch_size 15" in str(caught.value) and "--data.crops_per_image 2" in str(caught.value)
