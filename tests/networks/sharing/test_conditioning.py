import torch
from helpers.asserts import assert_table

from lit_mtdqn.networks.sharing.conditioning import AttentionMasks, FiLM, modulate


def test_each_group_is_scaled_and_shifted_unit_by_unit() -> None:
    scale = torch.tensor([[2.0, 1.0], [0.0, -1.0]]).view(2, 1, 2, 1)
    shift = torch.tensor([[0.0, 1.0], [5.0, 0.0]]).view(2, 1, 2, 1)
    output = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).expand(2, 2, 2)
    expected = [[[2.0, 3.0], [6.0, 5.0]], [[5.0, -2.0], [5.0, -4.0]]]
    assert_table(modulate(output, scale, shift), expected)


def test_all_places_of_a_channel_have_one_scale() -> None:
    scale = torch.tensor([2.0, 3.0]).view(1, 1, 2, 1)
    image = torch.ones(1, 1, 2, 2, 2)
    expected = [[[[[2.0, 2.0], [2.0, 2.0]], [[3.0, 3.0], [3.0, 3.0]]]]]
    assert_table(modulate(image, scale, torch.zeros(1, 1, 1, 1)), expected)


def test_the_embedding_says_scales_first_and_shifts_last() -> None:
    film = FiLM(1, [1, 2])
    with torch.no_grad():
        film.generator.weight.copy_(torch.arange(1.0, 7.0).view(6, 1))
    (scale_1, shift_1), (scale_2, shift_2) = film(torch.tensor([[1.0]]))
    assert scale_1.flatten().tolist() == [2.0]
    assert scale_2.flatten().tolist() == [3.0, 4.0]
    assert shift_1.flatten().tolist() == [4.0]
    assert shift_2.flatten().tolist() == [5.0, 6.0]


def test_a_mask_of_a_task_multiplies_what_is_shared() -> None:
    masks = AttentionMasks(["left", "right"], [2], hidden=3)
    with torch.no_grad():
        # 2 sigmoid(log 3) = 1.5 and 2 sigmoid(-log 3) = 0.5.
        bias = masks.get_submodule("masks.0").get_parameter("bias")
        bias[1, 0] = torch.tensor([3.0, 1.0 / 3.0]).log()
    (seen,) = masks([torch.full((2, 1, 2), 4.0)], torch.arange(2))
    assert_table(seen, [[[4.0, 4.0]], [[6.0, 2.0]]])
