"""Chat templates from strangers: they loop, grow and compute within bounds; sound ones give what
transformers gives.
"""

import json
import time

import pytest
from jinja2 import TemplateError

from cmt_sdk.text.template_sandbox import render_template

TALK = [
    {"role": "user", "content": "Where is 'it'? {12345678} <b> é"},
    {"role": "assistant", "content": "Here."},
    {"role": "user", "content": "And now?"},
]
S = "{% set s = 'a' * 1000000 %}"
LAUGHS = "{% set a = ['x'] * 1000 %}{% set b = [a] * 1000 %}{% set c = [b] * 1000 %}"
HOSTILE = {
    "nested loops": "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}",
    "a long range": "{% for i in range(100000) %}{% endfor %}",
    "multiplied": "{{ 'a' * 1000000000 }}",
    "doubled": (
        "{% set n = namespace(s='aaaaa') %}{% for i in range(40) %}{% set n.s = n.s ~ n.s %}{%"
        " endfor %}{{ n.s }}"
    ),
    "added": (
        "{% set n = namespace(s='aaaaa') %}{% for i in range(40) %}{% set n.s = n.s + n.s %}{%"
        " endfor %}{{ n.s }}"
    ),
    "centred": "{{ 'a'|center(1000000000) }}",
    "justified": "{{ 'a'.ljust(1000000000) }}",
    "formatted": "{{ '{:>1000000000}'.format(1) }}",
    "formatted by a map": "{{ '{a:>1000000000}'.format_map({'a': 1}) }}",
    "formatted by a filter": "{{ '%1000000000d'|format(1) }}",
    "formatted by %": "{{ '%1000000000d' % 1 }}",
    "a width among the values": "{{ '%*d' % (1000000000, 1) }}",
    "replaced": S + "{{ s.replace('a', s) }}",
    "joined": S + "{{ ([s] * 1000)|join(s) }}",
    "a macro that calls itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a macro that calls itself twice": (
        "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}"
    ),
    "to a power": "{{ 10 ** 100000000 }}",
    "squared": (
        "{% set n = namespace(s=9999) %}{% for i in range(64) %}{% set n.s = n.s * n.s %}{%"
        " endfor %}"
    ),
    "lists of lists": LAUGHS + "{{ c }}",
    "lists of lists as JSON": LAUGHS + "{{ c|tojson }}",
    "blind text": "{{ lipsum(n=100000000) }}",
    "a loop over its own": "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "text in a loop": "{% for i in range(9999) %}" + "a" * 9999 + "{% endfor %}",
    "search in a loop": S + "{% for i in range(9999) %}{% if 'ab' in s %}{% endif %}{% endfor %}",
    "a long template": "a" * 300_000,
}


@pytest.mark.parametrize("template", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_template_without_end_is_refused(template: str) -> None:
    """Within seconds, whatever it makes too much of, and by an error of templates."""
    started = time.process_time()
    with pytest.raises(TemplateError):
        render_template(template, TALK, "26 Jul 2024")
    assert time.process_time() - started < 30


SOUND = [
    (
        "{% for m in messages %}<|im_start|>{{ m['role'] + '\n' + m['content'] }}<|im_end|>\n{%"
        " endfor %}"
    ),
    (
        "{{ bos_token }}{% for m in messages %}[{{ m.role|upper }}] {{ m.content|trim }}{% endfor"
        " %}{{ strftime_now('%d') }}"
    ),
    (
        "{%- set ns = namespace(n=0) %}{%- for m in messages[::-1] %}{% set ns.n = ns.n + 1 %}{{"
        " ns.n ~ m.content }}{% endfor %}"
    ),
    (
        "{% macro f(m) %}{{ m.content.split('?')[0].strip() }}{% endmacro %}{{ f(messages[0]) }}{{"
        " messages|tojson(indent=1) }}"
    ),
    (
        "{% for m in messages if m.role == 'user' %}{% generation %}{{ m.content }}{% endgeneration"
        " %}{% endfor %}"
    ),
    (
        "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ '%s|%-4s' % (m.role,"
        " loop.index) }}{% endfor %}"
    ),
    (
        "{% if tools %}x{% endif %}{{ '{}: {}'.format(messages[0].role,"
        " messages[0].content.replace('{', '[')) }}"
    ),
    (
        "{{ messages|map(attribute='content')|join(', ')|replace('é', 'e')|indent(4) }}{{"
        " messages|selectattr('role')|list|length }}"
    ),
]


@pytest.mark.parametrize("template", SOUND)
def test_a_sound_template_gives_what_transformers_gives(template: str) -> None:
    """Letter by letter, over what templates of well-known models use."""
    from cmt_sdk.testing.tiny import byte_tokenizer

    tokenizer = byte_tokenizer()
    clock = "{% macro strftime_now(form) %}26 Jul 2024{% endmacro %}"
    theirs = tokenizer.apply_chat_template(
        TALK, chat_template=clock + template, tokenize=False, add_generation_prompt=True
    )
    assert (
        render_template(
            template,
            TALK,
            "26 Jul 2024",
            **tokenizer.special_tokens_map,
            add_generation_prompt=True,
        )
        == theirs
    )


def test_a_long_conversation_is_within_the_bounds() -> None:
    """A thousand turns, and one of a million characters."""
    turns = [{"role": "user", "content": f"Note {n}. " * 20} for n in range(1000)]
    long = [{"role": "user", "content": "word " * 200_000}]
    for said in (turns, long):
        text = render_template(SOUND[0], said, "x")
        assert text.count("<|im_end|>") == len(said)
        assert sum(len(m["content"]) for m in said) < len(text)


def test_what_a_template_refuses_is_its_own_word() -> None:
    """`raise_exception`, errors of types, and names that are not there."""
    for template, word in (
        ("{{ raise_exception('roles') }}", "roles"),
        ("{{ 1 + 'a' }}", "TypeError"),
        ("{{ x.y.z }}", "x"),
    ):
        with pytest.raises(TemplateError, match=word):
            render_template(template, TALK, "x")
    assert json.loads(render_template("{{ messages|tojson }}", TALK, "x")) == TALK
