"""What every distiller gets from its base: a teacher that stays as it is, and levels that make sense."""

import pytest
import torch
from torch import nn

from scigen.core.methods.base import Distiller
from scigen.errors import UserError


class Plain(Distiller):
    def loss(self, turn, batch):
        return {"loss": self.student(batch.x).mean()}


def test_teacher_is_frozen_and_stays_in_evaluation_mode():
    teacher = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).train()
    method = Plain(nn.Linear(2, 2), teacher, [2.0, 1.0]).train()
    assert method.student.training and not any(m.training for m in teacher.modules())
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for p in method.student.parameters())


@pytest.mark.parametrize("sigmas", [[], [1.0, 2.0], [1.0, 1.0], [1.0, 0.0], [float("inf")]])
def test_levels_that_do_not_decrease_to_above_zero_are_refused(sigmas):
    with pytest.raises(UserError, match=r"method\.sigmas.*decreasing"):
        Plain(nn.Identity(), nn.Identity(), sigmas)


def test_students_levels_are_plain_numbers():
    assert Plain(nn.Identity(), nn.Identity(), torch.tensor([2.0, 1.0])).sigmas == (2.0, 1.0)
