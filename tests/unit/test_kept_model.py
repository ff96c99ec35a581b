"""A model that is kept between openings: the same for the same settings and files, one at a time."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file

import cmt_sdk
from cmt_sdk.testing.fakes import FakeEngine


@pytest.fixture
def settings(tmp_path):
    """Settings with a model on this machine: numbers, and a name of an architecture."""
    save_file({"w": np.zeros(4, np.float32)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["Any"]}))
    return cmt_sdk.Settings(model=str(tmp_path), adapter="none")


@pytest.fixture
def kept():
    """Nothing is kept yet."""
    return cmt_sdk.KeptModel()


def made(settings):
    """An engine of its own for each call."""
    return FakeEngine.of(model=settings.model)


def test_the_same_settings_get_the_same_engine(kept, settings):
    """Also where they differ in what the model does not depend on."""
    first = kept.engine(settings, made)
    assert kept.loaded == settings.model
    assert kept.engine(settings, made) is first
    asked_otherwise = replace(
        settings, rerank=0, generator="http://127.0.0.1:1/v1", generator_model="m", exact_limit=5
    )
    assert kept.engine(asked_otherwise, made) is first
    assert kept.changes == 1


@pytest.mark.parametrize(
    "change", [{"runtime": "onnx"}, {"device": "cpu"}, {"precision": "fp32"}, {"compression": 3}]
)
def test_other_settings_of_the_model_get_another(kept, settings, change):
    """And the first one is given up: going back makes one again."""
    first = kept.engine(settings, made)
    assert kept.engine(replace(settings, **change), made) is not first
    assert kept.engine(settings, made) is not first
    assert kept.changes == 3


def test_the_engine_sees_no_setting_that_may_differ(kept, settings):
    """It could otherwise answer a memory by the settings of another."""
    seen = []
    kept.engine(replace(settings, rerank=3, passage_tokens=99), lambda s: seen.append(s) or made(s))
    assert seen == [settings]


def test_changed_files_get_another(kept, settings, tmp_path):
    """The folder may have been written again."""
    first = kept.engine(settings, made)
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["Any other"]}))
    assert kept.engine(settings, made) is not first


def test_a_model_that_is_not_here_is_not_kept(kept, settings):
    """Loading it reports what is missing, as without a kept model."""
    absent = replace(settings, model="nobody/nothing")
    assert kept.engine(absent, made) is not kept.engine(absent, made)
    assert kept.loaded is None
