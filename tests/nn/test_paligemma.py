import jax
import pytest

from pizero_jax import policies
from pizero_jax.config import BackboneConfig
from pizero_jax.errors import InputError
from tests.conftest import ONE_SAMPLE

KEY = jax.random.key(0)


@pytest.mark.parametrize("name", ["pi0", "pi05", "pi05_insulated", "pi0_fast", "regression", "shortcut"])
def test_pictures_of_a_camera_without_a_place_are_refused(variants, tiny_batch, name):
    """An observation may lack cameras, but what it has is seen."""
    config = variants[name]
    assert isinstance(config, BackboneConfig)
    policy = policies.make(config, ONE_SAMPLE)
    params = jax.eval_shape(policy.init, KEY)
    observation, first = tiny_batch.observation, config.cameras[0]

    def moved(by_camera):
        return {"elsewhere" if camera == first else camera: x for camera, x in by_camera.items()}

    renamed = observation.replace(images=moved(observation.images), image_masks=moved(observation.image_masks))
    fewer = observation.replace(images={first: observation.images[first]})
    assert jax.eval_shape(policy.act, params, KEY, fewer)
    with pytest.raises(InputError, match=f"has pictures of elsewhere; config.policy.cameras names {first}, "):
        jax.eval_shape(policy.act, params, KEY, renamed)
