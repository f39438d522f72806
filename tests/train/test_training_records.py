"""The records of a training and their JSON, whose keys and order are those of existing run directories."""

from __future__ import annotations

import json

from canopy.train.training_records import EpochTotals, TrainingPosition, TrainingSummary

STORED = """{
 "epoch": 1,
 "step": 3,
 "so_far": {
  "loss_sum": 2.0671849250793457,
  "steps": 3,
  "images": 48,
  "seconds": 0.0068
 },
 "phase": 1,
 "phase_start": 0,
 "best_score": 0.7,
 "best_epoch": 1,
 "history": [
  {
   "epoch": 1,
   "phase": 1,
   "train_loss": 0.7417485458510262,
   "score": 0.7,
   "val_map": 0.7,
   "val_macro_f1": 0.5,
   "images_per_s": 3263.540004929956,
   "lr": 0.018509660500509662,
   "seconds": 0.03498693000028652
  }
 ]
}"""
"""A progress as checkpoints hold it."""


def test_a_stored_progress_is_read_and_written_as_it_was() -> None:
    progress = TrainingPosition.from_json(json.loads(STORED))
    assert progress.epoch_totals == EpochTotals(2.0671849250793457, 3, 48, 0.0068)
    (record,) = progress.history
    assert (record.epoch, record.phase, record.score, record.val_macro_f1) == (1, 1, 0.7, 0.5)
    assert json.dumps(progress.to_json(), indent=1) == STORED


def test_a_progress_before_the_first_epoch_has_no_score_and_is_valid_json() -> None:
    text = json.dumps(TrainingPosition(step=2).to_json(), allow_nan=False)
    assert TrainingPosition.from_json(json.loads(text)) == TrainingPosition(step=2)
    assert json.loads(text)["best_score"] is None


def test_keys_that_are_absent_take_their_default() -> None:
    assert TrainingPosition.from_json({"epoch": 4, "best_score": 1.0}) == TrainingPosition(
        epoch=4, best_score=1.0
    )


def test_the_position_names_the_newest_checkpoint() -> None:
    assert TrainingPosition().position == ""
    assert TrainingPosition(epoch=2).position == "epoch 2"
    assert TrainingPosition(epoch=2, step=40).position == "epoch 3, step 40"


def test_a_phase_starts_once() -> None:
    progress = TrainingPosition(epoch=5)
    progress.start_phase(2)
    assert (progress.phase, progress.phase_start, progress.phase_epoch) == (2, 5, 0)
    progress.epoch = 7
    progress.start_phase(2)
    assert (progress.phase_start, progress.phase_epoch) == (5, 2)


def test_a_summary_keeps_its_keys_and_their_order() -> None:
    summary = TrainingSummary(1.5, False, 9.5, 3, 2, 100.0, 0)
    stored = summary.to_json()
    assert list(stored) == ["start", "resumed", "end", "epochs", "best_epoch", "images_per_s", "bad_images"]
    assert TrainingSummary.from_json(stored) == summary
