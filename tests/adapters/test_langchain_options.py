"""Options that LangChain's callers give: taken, passed over, or refused by name."""

import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from pydantic import BaseModel

from cmt_adapters.langchain import CMTRetriever, CMTVectorStore
from cmt_adapters.langchain_agent import ChatCMT, memory_tools
from cmt_sdk.errors import InvalidInput
from cmt_sdk.testing.fakes import open_fake

QUESTION = "Who likes green tea?"
ANSWER = "Ann likes green tea."


class Form(BaseModel):
    """What an answer is to be filled into."""

    name: str


@pytest.fixture
def memory(tmp_path):
    with open_fake(tmp_path / "notes") as opened:
        opened.add(ANSWER)
        yield opened


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0},
        {"temperature": 0.7, "top_p": 0.9, "seed": 7},
        {"timeout": 30, "max_retries": 2},
        {"user": "ann", "service_tier": "auto"},
        {"presence_penalty": 0.1, "frequency_penalty": 0.1, "logit_bias": {}},
        {"n": 1, "logprobs": False},
        {"tools": [], "tool_choice": "auto"},
        {"tool_choice": None, "response_format": None},
        {"response_format": {"type": "text"}},
        {"max_tokens": -1},
        {"max_tokens": None, "reader": None},
        {"extra_body": {"x": 1}, "stream_usage": True},
    ],
)
def test_usual_options_are_passed_over(memory, options):
    """In a call, bound, and in a stream."""
    model = ChatCMT(memory=memory)
    assert model.invoke(QUESTION, **options).content == ANSWER
    assert model.bind(**options).invoke(QUESTION).content == ANSWER
    assert "".join(c.content for c in model.stream(QUESTION, **options)).strip() == ANSWER


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"n": 2}, "n=2 cannot be done, there is one answer"),
        ({"response_format": {"type": "json_object"}}, "response_format=.*plain text"),
        ({"response_format": Form}, "response_format=.*plain text"),
        ({"tools": [{"type": "function"}]}, "tools=.*memory_tools"),
        ({"tool_choice": "any"}, "tool_choice='any'"),
        ({"tool_choice": {"type": "function"}}, "tool_choice="),
        ({"functions": [{"name": "read"}]}, "functions="),
        ({"logprobs": True}, "logprobs=True"),
        ({"modalities": ["text", "audio"]}, "modalities="),
    ],
)
def test_what_would_change_the_form_is_refused_by_name(memory, options, words):
    """Instead of prose where a caller waits for something else."""
    with pytest.raises(InvalidInput, match=rf"ChatCMT\.invoke\(\): {words}"):
        ChatCMT(memory=memory).invoke(QUESTION, **options)


@pytest.mark.parametrize(
    ("name", "meant"), [("temprature", "temperature"), ("kk", "k"), ("sources", "source")]
)
def test_a_name_that_no_chat_model_has(memory, name, meant):
    """The error is about the public call, and names the nearest."""
    with pytest.raises(
        TypeError,
        match=(
            rf"ChatCMT\.invoke\(\) has no argument '{name}': did you mean '{meant}'\? It takes"
            r" budget, k"
        ),
    ):
        ChatCMT(memory=memory).invoke(QUESTION, **{name: 1})


def test_bounds_of_an_answer(memory):
    """OpenAI's newer name of the longest answer, one stop text that is not in a list, and a scope
    for one call.
    """
    model = ChatCMT(memory=memory, scope="user/ben")
    assert model.invoke(QUESTION, scope=None).content == ANSWER
    assert (
        ChatCMT(memory=memory).invoke(QUESTION, max_completion_tokens=3).content
        == "Ann likes green"
    )
    assert ChatCMT(memory=memory).invoke(QUESTION, stop="green").content == "Ann likes"


def test_an_agent_with_tools_needs_another_model(memory):
    """The error says which model calls them, and how it gets this memory."""
    model = ChatCMT(memory=memory)
    given = {"messages": [HumanMessage(QUESTION)]}
    for options in ({"tools": memory_tools(memory)}, {"tools": [], "response_format": Form}):
        with pytest.raises(
            NotImplementedError,
            match=r"calls no tools: give the agent another model.*memory_tools\(memory\)",
        ):
            create_agent(model, **options).invoke(given)
    assert create_agent(model, tools=[]).invoke(given)["messages"][-1].content == ANSWER


@pytest.mark.parametrize("schema", [Form, {"title": "form", "type": "object", "properties": {}}])
def test_there_is_no_structured_output(memory, schema):
    """Asked for as such, the error comes at once."""
    with pytest.raises(NotImplementedError, match="fills in no schemas"):
        ChatCMT(memory=memory).with_structured_output(schema)


SEARCHES = {
    "similarity_search": lambda s, **o: s.similarity_search("tea", **o),
    "similarity_search_with_score": lambda s, **o: s.similarity_search_with_score("tea", **o),
    "similarity_search_by_vector": lambda s, **o: s.similarity_search_by_vector(
        s.memory.model.embed(["tea"])[0], **o
    ),
    "max_marginal_relevance_search": lambda s, **o: s.max_marginal_relevance_search("tea", **o),
}


@pytest.mark.parametrize("call", SEARCHES)
@pytest.mark.parametrize("name", ["where_document", "where", "namespace", "fetch"])
def test_a_search_names_itself_and_what_it_takes(memory, call, name):
    """Not a function within."""
    words = (
        rf"CMTVectorStore\.{call}\(\) has no argument '{name}'.*filter, scope, score_threshold,"
        r" source"
    )
    with pytest.raises(TypeError, match=words):
        SEARCHES[call](CMTVectorStore(memory), **{name: {"$contains": "tea"}})


@pytest.mark.parametrize("call", SEARCHES)
def test_a_threshold_leaves_out_what_is_less_alike(memory, call):
    """The least cosine, in every search; 0 leaves out what is unlike alone."""
    memory.add("Ships sail to Lisbon.")
    store = CMTVectorStore(memory)
    assert len(SEARCHES[call](store)) == 2
    assert len(SEARCHES[call](store, score_threshold=0.2)) == 1
    assert SEARCHES[call](store, score_threshold=0.999) == []


def test_a_retriever_of_the_store_passes_options_on(memory):
    """`as_retriever(search_kwargs=...)` takes the same names; a retriever of the memory says its
    own.
    """
    memory.add("Ships sail to Lisbon.")
    store = CMTVectorStore(memory)
    found = store.as_retriever(search_kwargs={"k": 3, "score_threshold": 0.2}).invoke("tea")
    assert [d.page_content for d in found] == [ANSWER]
    with pytest.raises(
        TypeError,
        match=r"CMTRetriever\.invoke\(\) has no argument 'filter'.*k, mode, scope, source, where",
    ):
        CMTRetriever(memory=memory).invoke("tea", filter={"a": 1})
