import numpy as np
import pytest
from PIL import Image

from pizero_jax.errors import InputError
from pizero_jax.report.figures import (
    contact_sheet,
    enlarge,
    learning_curves,
    loss_by_time,
    predicted_against_recorded,
    success_bars,
)


def plain(color, side=64):
    return np.full((side, side, 3), color, np.uint8)


def colors(path):
    return {tuple(color) for color in np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3).tolist()}


BLUE, VERMILLION = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)


def test_contact_sheet_puts_each_picture_in_its_row_and_column(tmp_path):
    shades = [[(200, 10 * i, 10 * j) for j in range(3)] for i in range(2)]
    contact_sheet([[plain(c) for c in row] for row in shades], ["one", "two"], tmp_path / "new" / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "new" / "sheet.png"))
    left = sheet.shape[1] - 3 * (192 + 6)
    for i in range(2):
        for j in range(3):
            block = sheet[6 + i * 198 :, left + j * 198 :][:192, :192]
            assert (block == shades[i][j]).all()


def test_contact_sheet_draws_every_label_inside_the_margin(tmp_path):
    labels = ["reach-v3", "a long instruction that has to be broken into lines"]
    contact_sheet([[plain(255)], [plain(255)]], labels, tmp_path / "s.png", columns=["step 7"])
    dark = np.asarray(Image.open(tmp_path / "s.png").convert("L")) < 128
    left = dark.shape[1] - 198
    assert dark[22:214, :left].any()  # first label
    assert dark[220:412, :left].any()  # second label
    assert dark[:22, left:].any()  # the column's title
    assert not dark[22:, left:].any()  # nothing over the white pictures
    assert not dark[:, 0].any()  # no label cut off at the edge
    assert not dark[:, left - 1].any()


def test_small_pictures_are_enlarged_by_whole_pixels_and_large_ones_are_left():
    picture = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)
    assert enlarge(picture).shape == (192, 144, 3)
    assert (enlarge(picture)[1::3, 2::3] == picture).all()
    assert enlarge(plain(0, 96)).shape == (192, 192, 3)
    assert enlarge(plain(0, 224)).shape == (224, 224, 3)


@pytest.mark.parametrize(
    ("rows", "labels", "message"),
    [
        ([[plain(0)], [plain(0), plain(0)]], ["a", "b"], "every row as many"),
        ([[plain(0)]], ["a", "b"], "labels"),
        ([[plain(0), plain(0, 32)]], ["a"], "one size"),
        ([[plain(0).astype(np.float32)]], ["a"], "uint8"),
        ([], [], "at least one"),
    ],
)
def test_contact_sheet_refuses_what_does_not_fit(tmp_path, rows, labels, message):
    with pytest.raises(InputError, match=message):
        contact_sheet(rows, labels, tmp_path / "s.png")


def test_learning_curves_show_training_and_validation(tmp_path):
    train = [{"step": s, "loss": 1 / s, "learning_rate": 1e-4} for s in range(1, 100)]
    val = [{"step": s, "val/loss": 2 / s, "val/action_error": 0.1, "val/by_time": [1, 2]} for s in range(10, 100, 10)]
    learning_curves(train, tmp_path / "train.png")
    learning_curves(train + val, tmp_path / "both.png")
    assert VERMILLION not in colors(tmp_path / "train.png")
    assert {BLUE, VERMILLION} <= colors(tmp_path / "both.png")
    # The validation's own errors get a panel of their own.
    assert Image.open(tmp_path / "both.png").width == 2 * Image.open(tmp_path / "train.png").width


def test_learning_curves_need_a_loss(tmp_path):
    with pytest.raises(InputError, match="metrics"):
        learning_curves([{"step": 1, "learning_rate": 0.1}], tmp_path / "c.png")


def test_loss_by_time_draws_heights_in_proportion(tmp_path):
    loss_by_time([0, 0.5, 1], [1.0, 0.25], tmp_path / "t.png")
    picture = np.asarray(Image.open(tmp_path / "t.png").convert("RGB"))
    blue = (picture == BLUE).all(-1).sum(0)
    heights = blue[blue > 0]
    # A pixel or two of outline on some 350.
    assert heights[: len(heights) // 3].max() / heights[-len(heights) // 3 :].max() == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize("edges", [[0, 1], [0, 1, 0.5]])
def test_loss_by_time_refuses_edges_that_do_not_fit(tmp_path, edges):
    with pytest.raises(InputError, match="ascending edges"):
        loss_by_time(edges, [1.0, 2.0], tmp_path / "t.png")


def test_perfect_predictions_cover_the_recorded_line_and_wrong_ones_do_not(tmp_path):
    recorded = np.sin(np.arange(40)[:, None] / 5 + np.arange(3))
    black = []
    for name, error in (("right", 0.0), ("wrong", 0.5)):
        path = tmp_path / f"{name}.png"
        predicted_against_recorded(recorded + error, recorded, range(0, 40, 8), ["x", "y", "z"], path)
        picture = np.asarray(Image.open(path).convert("RGB"))
        assert (picture == VERMILLION).all(-1).sum() > 500
        black.append((picture[100:] == 0).all(-1).sum())
    assert black[1] > black[0] + 500


def test_titles_carry_the_error_of_their_dimension(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    titles = []
    monkeypatch.setattr(Axes, "set_title", lambda self, title, **_: titles.append(title))
    recorded = np.zeros((10, 2))
    predicted = np.stack([np.full(10, 0.5), np.r_[np.zeros(5), np.full(5, 2.0)]], axis=1)
    predicted_against_recorded(predicted, recorded, [0, 5], ["x", "grip"], tmp_path / "p.png")
    assert titles == ["x: error 0.5", "grip: error 1.41"]  # sqrt(mean of 0 and 4) = 1.414


@pytest.mark.parametrize(
    ("predicted", "starts", "names", "message"),
    [
        (np.zeros((9, 2)), [0], ["x", "y"], "one shape"),
        (np.zeros((10, 2)), [0], ["x"], "names"),
        (np.zeros((10, 2)), [0, 10], ["x", "y"], "ascending steps"),
        (np.zeros((10, 2)), [2, 5], ["x", "y"], "ascending steps"),
        (np.zeros((10, 2)), [], ["x", "y"], "ascending steps"),
    ],
)
def test_predictions_that_do_not_fit_are_refused(tmp_path, predicted, starts, names, message):
    with pytest.raises(InputError, match=message):
        predicted_against_recorded(predicted, np.zeros((10, 2)), starts, names, tmp_path / "p.png")


def test_success_bars_are_as_high_as_the_rates(tmp_path):
    rows = [
        {"task": "reach-v3", "policy": "sighted", "successes": 10, "episodes": 10},
        {"task": "reach-v3", "policy": "blind", "successes": 4, "episodes": 10},
        {"task": "push-v3", "policy": "sighted", "successes": 8, "episodes": 10},
    ]
    success_bars(rows, tmp_path / "b.png")
    picture = np.asarray(Image.open(tmp_path / "b.png").convert("RGB"))[60:]  # below the legend
    height = {color: (picture == color).all(-1).sum(0).max() for color in (BLUE, VERMILLION)}
    assert height[VERMILLION] / height[BLUE] == pytest.approx(0.4, rel=0.05)  # outline and error bar: a few pixels


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "needs rows"),
        ([{"task": "a", "successes": 1, "episodes": 2}], "policy"),
        ([{"task": "a", "policy": "b", "successes": 1, "episodes": 2}] * 2, "twice"),
        ([{"task": "a", "policy": "b", "successes": 3, "episodes": 2}], "3 successes in 2"),
    ],
)
def test_success_bars_refuse_incomplete_rows(tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        success_bars(rows, tmp_path / "b.png")
