"""A task that is wrapped for several ranks trains as one that is not."""

from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from support.program import assert_equal
from support.toys import Toy, batch, learner, snapshot

from motivation.build.learners import finish_task
from motivation.method.optimizer_probe import inner_optimizer
from motivation.training.learner import Learner, UpdateRule


@pytest.fixture
def rank(tmp_path):
    """The only rank of a process group."""
    dist.init_process_group("gloo", f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield SimpleNamespace(distributed=True, device=torch.device("cpu"))
    dist.destroy_process_group()


@pytest.mark.parametrize(("opt", "mode"), [("sgd", "norm"), ("lamb", "agc"), ("lookahead_adamw", "value")])
def test_gradients_that_are_views_into_buckets_change_no_bit(opt, mode, rank):
    storages = []

    def see(optimizer, *_):
        gradients = [parameter.grad for group in optimizer.param_groups for parameter in group["params"]]
        storages.append({gradient.untyped_storage().data_ptr() for gradient in gradients})

    alone, other = (learner(Toy(), opt=opt, rule=UpdateRule(clip_grad=0.1, clip_mode=mode)) for _ in range(2))
    eval_model = finish_task(other.task, Namespace(torchcompile=None, no_ddp_bb=False), rank)
    wrapped = Learner(other.role, other.task, other.optimizer, None, other.rule, eval_model)
    inner_optimizer(wrapped.optimizer).register_step_pre_hook(see)
    for number in range(4):
        for one in (alone, wrapped):
            one.train([batch(number, accum_steps=2, is_last=False), batch(number + 9, accum_steps=2)])
    assert_equal(snapshot(wrapped), snapshot(alone))
    assert [len(found) for found in storages] == [1] * 4  # all of them lie in one bucket
