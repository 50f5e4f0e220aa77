import json
import pathlib

import numpy as np
import pytest

from pizero_jax.data import normalize
from pizero_jax.data.normalize import Normalizer, Statistics
from pizero_jax.data.sketch import Sketch
from pizero_jax.errors import InputError
from tests.data import make_rlds_tiny

HERE = pathlib.Path(__file__).parent
GOLDEN = dict(np.load(HERE / "golden_normalize.npz"))
VARYING = [0, 1, 2, 4]  # openpi's case has one constant dimension, which it divides by 1e-6


@pytest.fixture(scope="module")
def theirs() -> Statistics:
    return Statistics(*(GOLDEN[key] for key in ("mean", "std", "q01", "q99")))


@pytest.mark.parametrize(("kind", "expected"), [("zscore", "z"), ("quantile", "q")])
def test_normalisation_is_openpis(theirs, kind, expected):
    ours = Normalizer(theirs, kind, "state").normalize(GOLDEN["x"])
    np.testing.assert_allclose(ours[:, VARYING], GOLDEN[expected][:, VARYING], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("kind", "expected"), [("zscore", "unz8"), ("quantile", "unq8")])
def test_unnormalisation_is_openpis(theirs, kind, expected):
    ours = Normalizer(theirs, kind, "actions").unnormalize(GOLDEN["x8"][:, :5])
    np.testing.assert_allclose(ours, GOLDEN[expected][:, :5], rtol=1e-6, atol=5e-6)  # the constant included


def test_statistics_agree_with_openpis_running_ones(theirs):
    data = GOLDEN["data"].reshape(-1, 5)
    ours = Statistics.of(data)
    np.testing.assert_allclose(ours.mean, theirs.mean, rtol=1e-9)
    np.testing.assert_allclose(ours.std, theirs.std, rtol=1e-6, atol=1e-9)
    # Theirs are edges of histograms that were re-binned as the data came: within 10% of the range.
    assert (abs(ours.q01 - theirs.q01) <= 0.1 * np.ptp(data, axis=0)).all()
    assert (abs(ours.q99 - theirs.q99) <= 0.1 * np.ptp(data, axis=0)).all()
    assert ours.count == len(data)


def test_statistics_are_of_the_train_split(source):
    states = np.concatenate([make_rlds_tiny.episode(s)["state"] for s in make_rlds_tiny.SPLITS["train"]])
    np.testing.assert_allclose(source.statistics["state"].mean, states.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(source.statistics["state"].q99, np.quantile(states, 0.99, axis=0), rtol=1e-5)
    assert source.statistics["state"].count == len(states) == 24


@pytest.mark.parametrize("kind", ["zscore", "quantile"])
def test_unnormalise_inverts_normalise(kind):
    values = np.random.default_rng(0).normal(5, 3, size=(1000, 4))
    normalizer = Normalizer(Statistics.of(values), kind, "state")
    np.testing.assert_allclose(normalizer.unnormalize(normalizer.normalize(values)), values, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["zscore", "quantile"])
def test_a_constant_dimension_is_zero_and_never_explodes(kind):
    normalizer = Normalizer(Statistics.of(np.full((50, 1), 0.1, np.float32)), kind, "state")
    np.testing.assert_allclose(normalizer.normalize(np.array([np.float32(0.1)])), 0, atol=1e-7)
    np.testing.assert_allclose(normalizer.normalize(np.array([0.1001])), 1e-4, rtol=1e-3)
    np.testing.assert_allclose(normalizer.unnormalize(np.array([3.0])), 0.1, rtol=1e-6)


def test_a_rarely_moving_dimension_does_not_explode_under_quantiles():
    values = np.zeros((1000, 1))
    values[:5] = 1.0  # 0.5% of frames: both quantiles are 0
    normalized = Normalizer(Statistics.of(values), "quantile", "actions").normalize(values)
    np.testing.assert_allclose(normalized, (values - values.mean()) / values.std(), rtol=1e-4)


def noisy_gripper(share: float, n: int = 100_000) -> np.ndarray:
    """Open, at 1, in this share of n frames; its sensor has noise of 1e-3."""
    values = np.random.default_rng(0).normal(0, 1e-3, size=(n, 1))
    values[: round(share * n)] += 1
    return values


def glitch(n: int = 100_000) -> np.ndarray:
    """Normal values of n frames, and 1e6 in one of them."""
    values = np.random.default_rng(0).normal(size=(n, 1))
    values[0] = 1e6
    return values


@pytest.mark.parametrize("clip", [True, False])
def test_a_noisy_gripper_that_rarely_opens_is_zscored_and_opens(caplog, clip):
    values = noisy_gripper(share=0.005)
    statistics = Statistics.of(values)
    assert 1 / (statistics.q99[0] - statistics.q01[0]) > 190  # quantiles would map it to 380 and more
    normalizer = Normalizer(statistics, "quantile", "gripper", clip=clip)
    normalized = normalizer.normalize(values)
    assert "gripper: dimensions [0] have rare values far outside their quantiles and are z-scored" in caplog.text
    np.testing.assert_allclose(normalized.std(), 1, rtol=1e-4)
    np.testing.assert_allclose(normalized[0], (0.995 / 0.005) ** 0.5, rtol=0.01)  # 14.1
    np.testing.assert_allclose(normalizer.unnormalize(normalized), values, atol=1e-6)


def test_one_glitch_does_not_squeeze_a_dimension_that_quantiles_normalise():
    values = glitch()
    statistics = Statistics.of(values)
    assert statistics.std > 3_000  # z-scores would squeeze all other frames into 0.003
    normalized = Normalizer(statistics, "quantile", "state").normalize(values[1:])
    clean = Normalizer(Statistics.of(values[1:]), "quantile", "state").normalize(values[1:])
    np.testing.assert_allclose(normalized, clean, atol=1e-3)


@pytest.mark.parametrize("kind", ["zscore", "quantile"])
def test_a_glitch_is_clipped_for_states_and_kept_for_actions(kind):
    values = glitch()
    state = Normalizer(Statistics.of(values), kind, "state").normalize(values)
    assert state[0] == 20
    actions = Normalizer(Statistics.of(values), kind, "actions", clip=False)
    assert actions.normalize(values)[0] > 300
    np.testing.assert_array_equal(actions.normalize(values)[1:], state[1:])
    np.testing.assert_allclose(actions.unnormalize(actions.normalize(values))[0], 1e6, rtol=1e-5)


def test_the_report_of_a_glitch_names_dimension_values_and_remedy(caplog):
    values = np.concatenate([np.random.default_rng(1).normal(size=(100_000, 1)), glitch()], axis=1)
    Normalizer(Statistics.of(values), "quantile", "state 'joints'")
    (message,) = caplog.messages
    for part in ("state 'joints': dimension 1 has quantiles", "to 1e+06", "clipped to 20", "leave out these frames"):
        assert part in message


@pytest.mark.parametrize(("share", "zscored"), [(0.003, True), (0.002, False)])
def test_what_one_frame_in_400_does_counts_as_meant(share, zscored):
    values = noisy_gripper(share)
    normalized = Normalizer(Statistics.of(values), "quantile", "actions", clip=False).normalize(values)
    assert (normalized.max() < 20) == zscored


@pytest.mark.parametrize("kind", ["zscore", "quantile"])
@pytest.mark.parametrize("draw", ["normal", "uniform", "laplace"])
def test_ordinary_dimensions_are_not_outlying(caplog, kind, draw):
    values = getattr(np.random.default_rng(0), draw)(size=(200_000, 3))
    normalizer = Normalizer(Statistics.of(values), kind, "state")
    assert not caplog.messages
    assert normalizer.normalize(np.full(3, 1e6)).min() > 1e5


def test_statistics_of_openpis_files_never_clip(theirs):
    q01, q99 = theirs.q01[VARYING], theirs.q99[VARYING]
    far = Normalizer(theirs, "quantile", "state").normalize(np.full(5, 1e6))[VARYING]
    np.testing.assert_allclose(far, (1e6 - q01) / (q99 - q01 + 1e-6) * 2 - 1, rtol=1e-6)


def test_sketches_give_the_statistics_of_their_columns():
    values = np.random.default_rng(0).normal(3, 2, size=(5_000, 40)).astype(np.float32)
    values[:, 7] = 0.1
    found, exact = Statistics.of_sketches([Sketch.of(column) for column in values.T]), Statistics.of(values)
    for name in ("mean", "std", "q01", "q99", "min", "max"):
        np.testing.assert_allclose(getattr(found, name), getattr(exact, name), rtol=1e-12, atol=1e-15, err_msg=name)
    assert (found.count, found.std[7]) == (5_000, 0)


def test_statistics_of_a_checkpoint_are_read_back_exactly(source):
    read = normalize.from_dict(json.loads(json.dumps(normalize.to_dict(source.statistics), allow_nan=False)))
    np.testing.assert_equal(normalize.to_dict(read), normalize.to_dict(source.statistics))
    assert read["state"].min.shape == source.statistics["state"].mean.shape


def test_statistics_of_a_checkpoint_without_extremes_are_read():
    old = {"mean": [1.0], "std": [2.0], "q01": [0.0], "q99": [2.0], "count": 24}
    read = normalize.from_dict({"state": old})
    assert np.isnan(read["state"].min).all()
    assert np.isnan(read["state"].max).all()
    assert normalize.to_dict(read) == {"state": old}


def test_statistics_of_another_embodiment_are_refused(theirs):
    with pytest.raises(InputError, match=r"state has shape \[2, 7\], the statistics are of 5 dimensions"):
        Normalizer(theirs, "zscore", "state").normalize(np.zeros((2, 7)))


def test_openpis_file_is_read(theirs):
    read = normalize.load(str(HERE / "golden_norm_stats.json"))
    np.testing.assert_array_equal(read["state"].mean, theirs.mean)
    np.testing.assert_array_equal(read["state"].q99, theirs.q99)


def test_what_openpi_wrote_is_written_again_byte_for_byte(tmp_path):
    normalize.save(str(tmp_path / "norm_stats.json"), normalize.load(str(HERE / "golden_norm_stats.json")))
    written, theirs = ((folder / name).read_bytes() for folder, name in
                       ((tmp_path, "norm_stats.json"), (HERE, "golden_norm_stats.json")))  # fmt: skip
    assert written == theirs


def test_saved_statistics_are_read_back_exactly_in_openpis_layout(tmp_path, source):
    path = str(tmp_path / "norm_stats.json")
    normalize.save(path, source.statistics)
    for name, group in normalize.load(path).items():
        for key in ("mean", "std", "q01", "q99"):
            np.testing.assert_array_equal(getattr(group, key), getattr(source.statistics[name], key))
    theirs = json.loads((HERE / "golden_norm_stats.json").read_text())["norm_stats"]["state"]
    assert theirs.keys() <= json.loads(pathlib.Path(path).read_text())["norm_stats"]["state"].keys()


def test_statistics_without_quantiles_serve_zscore_only(tmp_path):
    (tmp_path / "old.json").write_text('{"norm_stats": {"state": {"mean": [1.0], "std": [2.0]}}}')
    state = normalize.load(str(tmp_path / "old.json"))["state"]
    assert Normalizer(state, "zscore", "state").normalize(np.array([3.0])) == pytest.approx(1.0, rel=1e-5)
    with pytest.raises(InputError, match="no quantiles: set config.data.normalization = 'zscore'"):
        Normalizer(state, "quantile", "state")


@pytest.mark.parametrize(
    "text", ["{}", "[]", '{"norm_stats": {"state": {"mean": [0], "std": [1], "average": [0]}}}', "no json"]
)
def test_a_file_of_another_layout_is_named(tmp_path, text):
    (tmp_path / "stats.json").write_text(text)
    with pytest.raises(InputError, match=r"stats.json is not in the layout"):
        normalize.load(str(tmp_path / "stats.json"))
