import pytest
from updates import answers, make_models, tokens

from mindgen import LLM


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two checkpoints of one shape."""
    return make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def fresh(folders):
    """What an engine of its own answers from each checkpoint, and its digest."""
    found = []
    for folder in folders:
        llm = LLM(folder, block_size=4)
        found.append((tokens(answers(llm)), llm.weight_checksum))
        llm.close()
    assert found[0][0] != found[1][0] and found[0][1] != found[1][1]
    return found


@pytest.fixture(scope="module")
def engine(folders):
    llm = LLM(folders[0], block_size=4)
    yield llm
    llm.close()


@pytest.fixture
def llm(engine, folders):
    """With the first checkpoint's weights."""
    engine.update_weights(folders[0], expect_change=False)
    return engine
