import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InputError
from deploy.engines.build_options import BuildOptions
from deploy.engines.target import (
    NOT_FOR_RTX,
    ComputeCapability,
    OptimizationProfile,
    capability_of,
    parse_batch,
    parse_size,
    parse_targets,
)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        # As nvidia-smi prints them.
        ("NVIDIA GeForce RTX 3090", "sm86"),
        ("NVIDIA GeForce RTX 3080 Ti Laptop GPU", "sm86"),
        ("NVIDIA GeForce RTX 4070 SUPER", "sm89"),
        ("NVIDIA GeForce RTX 4070 Ti SUPER", "sm89"),
        ("NVIDIA GeForce GTX 1660 Ti with Max-Q Design", "sm75"),
        ("NVIDIA A100-SXM4-80GB", "sm80"),
        ("NVIDIA A100-PCIE-40GB", "sm80"),
        ("NVIDIA A10", "sm86"),
        ("NVIDIA A10G", "sm86"),
        ("NVIDIA L4", "sm89"),
        ("NVIDIA L40S", "sm89"),
        ("Tesla T4", "sm75"),
        ("Tesla V100-SXM2-16GB", "sm70"),
        ("Quadro RTX 6000", "sm75"),
        ("NVIDIA RTX A6000", "sm86"),
        ("NVIDIA RTX 6000 Ada Generation", "sm89"),
        ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", "sm120"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "sm120"),
        ("NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", "sm120"),
        ("NVIDIA H100 80GB HBM3", "sm90"),
        ("NVIDIA H100 NVL", "sm90"),
        ("NVIDIA GB10", "sm121"),
        ("NVIDIA Jetson AGX Orin Developer Kit", "sm87"),
        # As people type them.
        ("rtx5090", "sm120"),
        ("RTX_3090", "sm86"),
        ("3090", "sm86"),
        ("4070ti-super", "sm89"),
        ("a10", "sm86"),
        ("Jetson Orin Nano", "sm87"),
        ("Jetson Thor", "sm110"),
        # As numbers.
        ("sm86", "sm86"),
        ("SM_120", "sm120"),
        ("compute_89", "sm89"),
        ("8.6", "sm86"),
        (" 12.0 ", "sm120"),
        ("75", "sm75"),
    ],
)
def test_a_gpu_is_found_by_any_of_its_names(text, label):
    assert str(capability_of(text)) == label


@pytest.mark.parametrize("text", ["RTX 6000", "rtx4000", "NVIDIA RTX 5000", "rtx 2000", "6000"])
def test_a_name_that_gpus_share_is_refused_with_the_choices(text):
    with pytest.raises(InputError, match=r"more than one|no GPU") as caught:
        capability_of(text)
    assert "sm" in caught.value.hint


@pytest.mark.parametrize("text", ["RTX 3091", "tpu", "sm", "8.66", "", "sm8600", "cuda:0"])
def test_an_unknown_name_is_refused_with_a_way_to_find_it(text):
    with pytest.raises(InputError) as caught:
        capability_of(text)
    assert "nvidia-smi" in caught.value.hint
    assert text in caught.value.problem


def test_a_near_miss_is_suggested():
    with pytest.raises(InputError) as caught:
        capability_of("RTX 3098")
    assert "rtx309" in caught.value.hint


@given(st.integers(1, 99), st.integers(0, 9))
def test_every_capability_reads_back(major, minor):
    capability = ComputeCapability(major, minor)
    assert capability_of(str(capability)) == capability
    assert capability_of(capability.dotted) == capability
    assert ComputeCapability.from_digits(str(capability)[2:]) == capability


def test_a_list_is_sorted_and_each_once():
    assert parse_targets("L4, sm86,8.9,rtx3090") == (
        ComputeCapability(8, 6),
        ComputeCapability(8, 9),
    )
    with pytest.raises(InputError, match="names no GPU"):
        parse_targets(" , ")


def test_what_rtx_does_not_serve_is_known_by_name():
    names = ["Orin", "Thor", "H100", "B200", "V100", "Xavier"]
    assert {capability_of(name) for name in names} <= set(NOT_FOR_RTX)
    assert capability_of("A100") not in NOT_FOR_RTX


@pytest.mark.parametrize(
    ("text", "sizes"), [("1,8,32", (1, 8, 32)), ("4", (4, 4, 4)), ("2, 2, 2", (2, 2, 2))]
)
def test_batch_sizes_are_read(text, sizes):
    profile = parse_batch(text)
    assert (profile.min, profile.opt, profile.max) == sizes


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("8,1,32", "min > opt", "--batch 1,8,32"),
        ("1,32,8", "opt > max", "--batch 1,8,32"),
        ("0,1,2", "smallest batch is 1", "1,8,32"),
        ("-4", "smallest batch is 1", "1,8,32"),
        ("1,2", "not min,opt,max", "1,8,32"),
        ("a,b,c", "not min,opt,max", "1,8,32"),
        ("", "not min,opt,max", "1,8,32"),
        ("1,2,3,4", "not min,opt,max", "1,8,32"),
        ("1.5", "not min,opt,max", "1,8,32"),
    ],
)
def test_disorder_is_named(text, says, hint):
    with pytest.raises(InputError, match=says) as caught:
        parse_batch(text)
    assert hint in caught.value.hint


@given(st.lists(st.integers(1, 64), min_size=3, max_size=3))
def test_only_sizes_in_order_make_a_profile(sizes):
    if sorted(sizes) == sizes:
        assert str(OptimizationProfile(*sizes)) == ",".join(map(str, sizes))
    else:
        with pytest.raises(InputError):
            OptimizationProfile(*sizes)


@pytest.mark.parametrize(
    "options", [{"optimization_level": 6}, {"optimization_level": -1}, {"workspace_bytes": 1000}]
)
def test_numbers_without_a_meaning_are_refused(options):
    with pytest.raises(InputError):
        BuildOptions(**options)


def test_sizes_are_read_height_first():
    assert parse_size("224") == (224, 224)
    assert parse_size("1024x2048") == parse_size("1024×2048") == (1024, 2048)
    for text in ("", "x", "0", "224x", "224x0", "1e3", "-1", "1000000"):
        with pytest.raises(InputError, match="not a size"):
            parse_size(text)
