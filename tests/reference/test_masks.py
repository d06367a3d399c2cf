"""The four frameworks' masks, against pictures drawn by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glm2_reference.masks import (
    bidirectional_mask,
    causal_mask,
    draw_mask,
    encoder_decoder_masks,
    glm_mask,
)

LENGTHS = st.integers(0, 12)


def test_masks_as_the_lecture_draws_them():
    assert draw_mask(causal_mask(3)) == "# . .\n# # .\n# # #"
    assert draw_mask(bidirectional_mask(2)) == "# #\n# #"
    assert draw_mask(glm_mask(2, 3), "ABxyz") == (
        "  A B x y z\nA # # . . .\nB # # . . .\nx # # # . .\ny # # # # .\nz # # # # #"
    )
    masks = encoder_decoder_masks(2, 3)
    assert draw_mask(masks.cross, "AB") == "A B\n# #\n# #\n# #"
    assert draw_mask(masks.decoder) == "# . .\n# # .\n# # #"


@given(len_a=LENGTHS, len_b=LENGTHS)
def test_glm_mask_is_the_definition(len_a, len_b):
    mask = glm_mask(len_a, len_b)
    for query in range(len_a + len_b):
        for key in range(len_a + len_b):
            seen = key < len_a or (query >= len_a and key <= query)
            assert mask[query, key] == seen


@given(source=LENGTHS, target=LENGTHS)
def test_glm_is_encoder_and_decoder_in_one(source, target):
    joined = encoder_decoder_masks(source, target).joined()
    assert np.array_equal(joined, glm_mask(source, target))


@given(length=LENGTHS)
def test_seeing_more_never_hides(length):
    assert (causal_mask(length) <= bidirectional_mask(length)).all()
    for len_a in range(length):
        assert (glm_mask(len_a, length - len_a) <= glm_mask(len_a + 1, length - len_a - 1)).all()


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="len_b is -1; expected 0 or more"):
        glm_mask(2, -1)
    with pytest.raises(ValueError, match="source is -2"):
        encoder_decoder_masks(-2, 1)
    with pytest.raises(ValueError, match="labels has 1 characters and the mask 2 keys"):
        draw_mask(causal_mask(2), "A")
