"""Chat templates of all kinds, and the whole path with them: the head stays the same, what was said
is said, or it is refused.
"""

import pytest
from tokenizers.processors import TemplateProcessing

import cmt_sdk
from cmt_sdk.errors import ModelUnsupported
from cmt_sdk.neural.methods.soft import SoftMethod
from cmt_sdk.testing.families import tiny_model
from cmt_sdk.testing.tiny import save_tiny, tiny_frozen
from cmt_sdk.types import Turn

TEXT = "The museum moved to Lisbon in 2019."
OTHER = "The harbour is in Genoa, and it freezes in winter."
GEMMAS = (
    "{{ '<start>' }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not"
    " supported') }}{% endif %}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 %"
    " 2 == 0) %}{{ raise_exception('Conversation roles must alternate"
    " user/assistant/user/assistant/...') }}{% endif %}<{{ 'model' if m['role'] == 'assistant' else"
    " m['role'] }}>{{ m['content'] | trim }}<end>\n{% endfor %}{% if add_generation_prompt"
    " %}<model>{% endif %}"
)
QWENS = (
    "{% if messages[0]['role'] != 'system' %}<start>system\nYou are kind.<end>\n{% endif %}{% for m"
    " in messages %}<start>{{ m['role'] }}\n{{ m['content'] }}<end>\n{% endfor"
    " %}<start>assistant\n{% if enable_thinking is defined and enable_thinking is false"
    " %}<think>\n\n</think>\n\n{% endif %}"
)
DATED = (
    "{% set today = strftime_now('%d %B %Y') %}<start>system\nToday Date: {{ today }}{{ date_string"
    " }}<end>\n" + QWENS
)
TEMPLATES = {"gemma": GEMMAS, "qwen": QWENS, "dated": DATED, "none": None}
TALKS = {
    "bare": (),
    "turns": (Turn("user", "Where is it?"), Turn("assistant", "Lisbon")),
    "system": (Turn("system", "Be brief."),),
    "assistant first": (Turn("assistant", "Hello."),),
    "twice the same": (
        Turn("user", "Hello."),
        Turn("user", "Listen."),
        Turn("assistant", "Yes?"),
        Turn("assistant", "Well?"),
    ),
}


def prompted(template):
    """A model whose tokenizer has another chat template."""
    lm = tiny_frozen()
    lm.tokenizer.chat_template = template
    return lm


@pytest.mark.parametrize("talk", TALKS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_what_stands_before_the_notes_is_always_the_same(template, talk):
    """With or without a system role, or no template at all; and nothing that was said gets lost."""
    lm = prompted(TEMPLATES[template])
    head, rest = (
        lm.tokenizer.decode(lm.prefix_ids),
        lm.tokenizer.decode(lm.question_ids("And when?", TALKS[talk])),
    )
    assert head.endswith("I don't know.\n\n")
    places = [rest.index(turn.content) for turn in TALKS[talk]] + [
        rest.index("Question: And when?")
    ]
    assert places == sorted(places)
    bare = lm.tokenizer.decode(lm.bare_ids("And when?", TALKS[talk]))
    assert all(turn.content in bare for turn in TALKS[talk])


def test_prompts_do_not_change_with_the_day_and_do_not_ask_to_think():
    """The date of a template stands still; where a template can have the answer at once, it
    does.
    """
    lm = prompted(DATED)
    assert lm.tokenizer.decode(lm.prefix_ids).startswith(
        "<start>system\nToday Date: 26 Jul 202426 Jul 2024<end>\n"
    )
    assert lm.tokenizer.decode(lm.question_ids("Where?")).endswith(
        "<start>assistant\n<think>\n\n</think>\n\n"
    )


def test_without_a_template_a_prompt_begins_as_the_tokenizer_begins():
    """A base model of a family whose texts begin with a token of their own gets that token,
    once.
    """
    lm = prompted(None)
    assert lm.tokenizer.decode(lm.prefix_ids).startswith("Read the notes")
    lm = prompted(None)
    lm.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<start> $A", special_tokens=[("<start>", 1)]
    )
    assert lm.prefix_ids[:2] == [1, *lm.ids("R")]


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        (
            "{{ messages[0]['content'] }}{{ messages[0]['content'] }}",
            "does not show the user's words once",
        ),
        ("{{ messages | length }}", "does not show the user's words once"),
        ("{{ raise_exception('tools only') }}", r"refuses the prompt \(tools only\)"),
        (
            "{{ messages[0]['content'] | length }}{{ messages[0]['content'] }}",
            "begins differently for every prompt",
        ),
    ],
)
def test_a_template_that_cannot_hold_notes_is_refused(template, problem):
    """The error names the family and what the template does."""
    with pytest.raises(
        ModelUnsupported, match=f"llama: its chat template {problem}; use another model"
    ):
        prompted(template).question_ids("Where?")


@pytest.mark.parametrize(
    ("template", "end"),
    [
        (QWENS, "<end>"),
        (QWENS.replace("<end>", "<start>"), "<start>"),
        (None, "<end>"),
        ("<start>{{ messages[0]['content'] }}", "<end>"),
        (
            (
                "{% if messages | length > 1 %}{{ raise_exception('one turn') }}{% endif %}{{"
                " messages[0]['content'] }}"
            ),
            "<end>",
        ),
    ],
)
def test_an_answer_ends_as_the_template_ends_it(template, end):
    """Where a model stops at several tokens, whichever the tokenizer names; its own where a
    template shows no answer.
    """
    lm = prompted(template)
    lm.model.generation_config.eos_token_id = [1, 0]
    assert (lm.stop_ids, lm.tokenizer.eos_token) == ({0, 1}, "<end>")
    assert lm.tokenizer.decode([lm.end_id]) == end


def test_a_model_without_an_end_is_refused():
    """Nothing would stop an answer, or fill a batch."""
    lm = tiny_frozen()
    lm.tokenizer.eos_token = None
    lm.model.generation_config.eos_token_id = None
    with pytest.raises(
        ModelUnsupported,
        match=r"llama: neither generation_config\.json nor the tokenizer names an eos token",
    ):
        SoftMethod(lm, 4).compress([TEXT])


WHOLE = [
    ("qwen3", "kv", QWENS),
    ("gemma", "kv", GEMMAS),
    ("phi", "kv", None),
    ("phi3", "kv", GEMMAS),
    ("gemma2", "kv", GEMMAS),
    ("gemma3", "kv", GEMMAS),
    ("smollm3", "kv", DATED),
    ("mistral", "soft", GEMMAS),
    ("gpt2", "soft", None),
    ("llama", "soft", None),
]


@pytest.mark.parametrize(("family", "compressor", "template"), WHOLE)
def test_a_memory_is_made_kept_and_asked(family, compressor, template, tmp_path):
    """From a model's folder to an answer with its source, and the same answer when the memory is
    opened again.
    """
    model = save_tiny(tmp_path / "model", tiny_model(family), template)
    settings = {"model": str(model), "device": "cpu", "precision": "fp32", "compressor": compressor}
    with cmt_sdk.open(tmp_path / "memory", **settings) as memory:
        memory.add(TEXT, source="museum.md")
        memory.add(OTHER, source="harbour.md")
        first = memory.model.ask("Where is the museum?", k=1, max_tokens=6)
        chat = [Turn("system", "Be brief."), Turn("user", "Hello."), Turn("assistant", "Hello.")]
        assert (
            memory.model.ask("Where is the museum?", history=chat, k=2, max_tokens=6).reader
            == "memory"
        )
    with cmt_sdk.open(tmp_path / "memory", device="cpu") as memory:
        again = memory.model.ask("Where is the museum?", k=1, max_tokens=6)
    assert (again.text, again.confidence) == (first.text, pytest.approx(first.confidence, abs=1e-5))
    assert {source.source for source in first.sources} <= {"museum.md", "harbour.md"}
    assert first.sources
