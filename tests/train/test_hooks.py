"""metrics.jsonl, TensorBoard and the progress line."""

import json
import math
import struct

import numpy as np
import pytest
from PIL import Image

from supcon_jax.train import hooks


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def events(folder):
    """All events of the TensorBoard files, read by their frame: length, its crc, payload, its crc."""
    from tensorboardX.proto.event_pb2 import Event

    out = []
    for path in sorted((folder / "tensorboard").iterdir()):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            out.append(Event.FromString(data[12 : 12 + length]))
            data = data[16 + length :]
    return out


def written(folder, start, steps, **more):
    writer = hooks.Writer(folder, start)
    for step in steps:
        writer.scalars(step, {"loss": step / 2, **more})
    writer.close()


def test_every_line_is_a_step_with_its_numbers(tmp_path):
    written(tmp_path, 0, (1, 2, 3))
    assert lines(tmp_path) == [{"step": step, "loss": step / 2} for step in (1, 2, 3)]


def test_a_resumed_run_removes_what_lies_behind_its_step(tmp_path):
    written(tmp_path, 0, range(1, 8))
    written(tmp_path, 4, (5, 6), again=1.0)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert [line.get("again") for line in lines(tmp_path)] == [None] * 4 + [1.0] * 2


def test_a_run_that_begins_anew_begins_with_an_empty_file(tmp_path):
    written(tmp_path, 0, range(1, 8))
    written(tmp_path, 0, (1,))
    assert [line["step"] for line in lines(tmp_path)] == [1]


@pytest.mark.parametrize("rest", ['{"step": 3, "lo', '{"st', "{}", "3", "null", "[]", "\x00\x00", ""])
def test_a_line_cut_by_a_kill_is_removed(tmp_path, rest):
    written(tmp_path, 0, (1, 2))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(rest)
    written(tmp_path, 2, (3,))
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3]


def test_numbers_that_json_lacks_stay_readable(tmp_path):
    written(tmp_path, 0, (1,), bad=math.nan, big=math.inf, array=np.float32(0.5))
    text = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"step": 1, "loss": 0.5, "bad": "nan", "big": "inf", "array": 0.5}


def test_lines_are_on_disk_before_the_writer_is_closed(tmp_path):
    writer = hooks.Writer(tmp_path, 0)
    writer.scalars(1, {"loss": 1.0})
    assert lines(tmp_path) == [{"step": 1, "loss": 1.0}]
    writer.close()


def test_tensorboard_holds_the_same_numbers_and_the_pictures(tmp_path):
    writer = hooks.Writer(tmp_path, 0)
    writer.scalars(3, {"gen/loss": 0.25})
    writer.picture(3, "samples", Image.new("RGB", (6, 4), (255, 0, 0)))
    writer.close()
    found = {(value.tag, event.step): value for event in events(tmp_path) for value in event.summary.value}
    assert found["gen/loss", 3].simple_value == 0.25
    assert (found["samples", 3].image.width, found["samples", 3].image.height) == (6, 4)


def test_tensorboard_is_told_from_where_a_resumed_run_goes_on(tmp_path):
    """A session-log event START at the first step to come: TensorBoard then hides what was written behind it."""
    written(tmp_path, 0, (1, 2, 3, 4))
    written(tmp_path, 2, (3,))
    starts = [event.step for event in events(tmp_path) if event.WhichOneof("what") == "session_log"]
    assert starts == [3]


def test_progress_rates_are_since_the_last_call(monkeypatch):
    clock = iter((100.0, 104.0, 106.0))
    monkeypatch.setattr(hooks.time, "monotonic", lambda: next(clock))
    progress = hooks.Progress("gan", steps=100, images=16, start=10)
    progress.waited = 1.0
    assert progress.rates(20) == {"images_per_s": 10 * 16 / 4, "input_wait_share": 0.25}
    assert progress.rates(25) == {"images_per_s": 5 * 16 / 2, "input_wait_share": 0.0}


def test_the_progress_line_says_step_rate_time_left_losses_and_waiting(capsys):
    progress = hooks.Progress("gan", steps=100, images=16, start=0)
    values = {"gen/loss": 1.23456, "gen/scl": 0.5, "gen/kl": 9.0, "images_per_s": 32.0, "input_wait_share": 0.256}
    progress.line(40, values)
    said = capsys.readouterr().err
    assert said == "gan 40/100 | 32 images/s | 0:30 left | gen/loss 1.235 gen/scl 0.5 | input 26 %\n"


@pytest.mark.parametrize(
    "seconds,text", [(0, "0:00"), (59.9, "0:59"), (61, "1:01"), (3600, "1:00:00"), (90061, "25:01:01"), (math.inf, "-:--")]
)
def test_clock(seconds, text):
    assert hooks.clock(seconds) == text
