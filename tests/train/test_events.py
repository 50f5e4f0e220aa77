import numpy as np
from PIL import Image
from tensorboardX.proto.event_pb2 import Event, SessionLog

from pizero_jax.data.records import read_records
from pizero_jax.train.events import Events


def written(folder) -> list[Event]:
    """The events of all files, in the order of their writing; checksums are looked at."""
    files = sorted(folder.iterdir(), key=lambda file: file.stat().st_mtime_ns)
    return [Event.FromString(record.data) for file in files for record in read_records(str(file))]


def test_numbers_and_pictures_are_in_the_file(tmp_path):
    Image.new("RGB", (5, 3), "red").save(tmp_path / "red.png")
    events = Events(tmp_path / "tensorboard")
    events.numbers(7, {"loss": 0.25, "val/loss": 0.5})
    events.pictures(7, {"val/chunks": tmp_path / "red.png"})
    version, start, *rest = written(tmp_path / "tensorboard")  # before it is closed: a killed run has its numbers
    assert version.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (1, SessionLog.START)
    values = {value.tag: value for event in rest for value in event.summary.value}
    assert {event.step for event in rest} == {7}
    assert (values["loss"].simple_value, values["val/loss"].simple_value) == (0.25, 0.5)
    (tmp_path / "again.png").write_bytes(values["val/chunks"].image.encoded_image_string)
    np.testing.assert_array_equal(Image.open(tmp_path / "again.png"), Image.open(tmp_path / "red.png"))


def test_a_resumed_run_takes_back_later_steps(tmp_path):
    """TensorBoard drops what earlier files have from the step of a START on."""
    for resume_step in (0, 4):
        events = Events(tmp_path, resume_step)
        events.numbers(resume_step + 1, {"loss": 1.0})
        events.close()
        assert written(tmp_path)[-2].step == resume_step + 1
        assert written(tmp_path)[-2].session_log.status == SessionLog.START


def test_a_full_disk_does_not_end_the_run(tmp_path, caplog):
    events = Events(tmp_path)
    events._writer._py_recordio_writer._writer = open("/dev/full", "wb")  # noqa: SIM115
    events.numbers(1, {"loss": 1.0})
    events.numbers(2, {"loss": 1.0})
    events.close()
    assert "No space left on device" in caplog.text
    assert caplog.text.count("without TensorBoard") == 1
