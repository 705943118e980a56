"""What was read of conversations."""

import pytest
import torch
from tiny import TOKENIZER, write_vectors

from guardrail.calibrate.projections import Spoken, followed, steering, token_projections
from guardrail.errors import CalibrationError
from guardrail.extract.subject import Subject
from guardrail.testing import tiny_model


def test_a_token_whose_state_is_not_a_number_is_an_error_and_not_left_out(tmp_path):
    model = tiny_model()
    vectors = write_vectors(tmp_path, model)
    with torch.no_grad():
        model.get_input_embeddings().weight[7] = float("nan")
    subject, about = Subject(tiny_model(), TOKENIZER), (steering(vectors), followed(vectors, {}), 0)
    assert token_projections(subject, [Spoken((1, 20, 7, 30), 2)], *about).tokens == 4
    subject.model.load_state_dict(model.state_dict())
    with pytest.raises(CalibrationError, match="not finite"):
        token_projections(subject, [Spoken((1, 20, 7, 30), 2)], *about)
