from project.models.stages import stage_of


def run(epochs, *lengths):
    names = {(True, False): "g", (False, True): "c", (True, True): "b"}
    return "".join(names[stage_of(epoch, *lengths)] for epoch in range(epochs))


def test_the_generator_then_the_critic_then_both():
    assert run(6, 2, 1) == "ggcbbb"
    assert run(3, 0, 0) == "bbb"
    assert run(3, 1, 0) == "gbb"
    assert run(3, 0, 2) == "ccb"
