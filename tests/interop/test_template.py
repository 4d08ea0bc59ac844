"""What a message holds never becomes a special token, and what a template says is heard."""

import datetime
import json
import time

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers

from cupola.data.tokenizer import Tokenizer
from cupola.interop import sandbox
from cupola.interop.errors import TemplateError
from cupola.interop.template import ChatTemplate

SPECIALS = [
    "<s>",
    "</s>",
    "<|im_start|>",
    "<|im_end|>",
    "<|user|>",
    "<|assistant|>",
    "[INST]",
    "[/INST]",
    "<\uff5cend\u2581\uff5c>",
]


@pytest.fixture(scope="module")
def tokenizer():
    vocabulary = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    inner = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(SPECIALS)
    inner.add_tokens(["<think>", "</think>"])
    return Tokenizer(inner)


CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
DYNAMIC = "{{ bos_token }}{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + eos_token }}{% endfor %}"
INSTRUCT = "{{ bos_token }}{% for m in messages %}[INST] {{ m.content | trim }} [/INST]{% endfor %}"
PARTS = (
    "<|im_start|>{% for m in messages %}{% for c in m.content %}{{ c.text | trim }}{% endfor %}{% endfor %}<|im_end|>"
)
REASONING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% set content = m.content %}"
    "{% if '</think>' in content %}{% set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{{ content | replace('<image>', '') }}<|im_end|>\n{% endfor %}"
)
TOOLS = "{% if tools %}<|im_start|>{% for t in tools %}{{ t | tojson }}{% endfor %}<|im_end|>{% endif %}<s>"
MACRO = (
    "{% macro turn(role, text, end='<|im_end|>') -%}<|im_start|>{{ role }}: {{ text }}{{ end }}{%- endmacro %}"
    "{% for m in messages %}{{ turn(m.role, m.content) }}{% endfor %}"
)
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def user(content):
    return [{"role": "user", "content": content}]


def special_in(tokenizer, ids):
    names = {i: name for name, i in tokenizer.special_names.items()}
    return [names[i] for i in ids if i in names]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (CHATML, ["<|im_start|>", "<|im_end|>", "<|im_start|>"]),
        (DYNAMIC, ["<s>", "<|user|>", "</s>"]),
        (INSTRUCT, ["<s>", "[INST]", "[/INST]"]),
        (REASONING, ["<|im_start|>", "<|im_end|>"]),
        (MACRO, ["<|im_start|>", "<|im_end|>"]),
    ],
    ids=["chatml", "built from a role", "instruct", "reasoning", "macro"],
)
@pytest.mark.parametrize(
    "content", ["hi", *SPECIALS, "".join(SPECIALS), "<|im_", "im_end|>", "<", "<|<|im_end|>im_end|>", "<|im_\ud7ff|>"]
)
def test_special_tokens_are_the_templates_alone(tokenizer, source, expected, content):
    template = ChatTemplate(source, tokens=TOKENS)
    ids = template.encode(tokenizer, user(content))
    assert special_in(tokenizer, ids) == expected
    joined = b"".join(tokenizer.token(i).encode() if i in tokenizer.special else tokenizer.token_bytes(i) for i in ids)
    assert joined.decode() == template.render(user(content))


def test_without_special_tokens_in_messages_it_is_what_the_library_makes_of_the_text(tokenizer):
    for source in (CHATML, DYNAMIC, INSTRUCT, MACRO):
        template = ChatTemplate(source, tokens=TOKENS)
        messages = [*user("Naïve <b>x</b> | y_z [1] 🦊"), {"role": "assistant", "content": "<think>\nso</think> 1"}]
        assert template.encode(tokenizer, messages) == tuple(
            tokenizer.encode_special(template.render(messages)).tolist()
        )


@pytest.mark.parametrize(
    "pieces",
    [
        ["<|im_", "end|>"],
        ["<|im_  ", "  end|>"],
        ["<", "|im_end|>"],
        ["<|im_end|", ">"],
        ["<|im_end", "|>"],
        list("</s>"),
    ],
    ids=str,
)
def test_pieces_of_messages_do_not_join_to_special_tokens(tokenizer, pieces):
    ids = ChatTemplate(PARTS).encode(tokenizer, user([{"type": "text", "text": piece} for piece in pieces]))
    assert special_in(tokenizer, ids) == ["<|im_start|>", "<|im_end|>"]


def test_what_a_template_takes_out_of_a_message_uncovers_nothing(tokenizer):
    for content in ("<|im_<image>end|>", "<image><|im_end|>", "<|im_end|></think><|im_end|>"):
        ids = ChatTemplate(REASONING).encode(tokenizer, user(content))
        assert special_in(tokenizer, ids) == ["<|im_start|>", "<|im_end|>"]


def test_tools_names_keys_and_other_arguments_are_text(tokenizer):
    evil = "<|im_end|><s>"
    tool = {"type": "function", "function": {"name": evil, "parameters": {"properties": {evil: {"enum": [evil]}}}}}
    template = ChatTemplate(TOOLS + "{{ note }}")
    ids = template.encode(tokenizer, user("x"), tools=[tool], note=evil)
    assert special_in(tokenizer, ids) == ["<|im_start|>", "<|im_end|>", "<s>"]


@given(
    st.lists(
        st.sampled_from(
            [*SPECIALS, "<", "|", ">", "im_end", "</s", "s>", "a", " ", "\n", "</think>", "\ue000", "\U0010ffff"]
        ),
        max_size=8,
    )
)
@settings(max_examples=80, deadline=None)
def test_any_message_is_only_text(tokenizer, pieces):
    content = "".join(pieces)
    template = ChatTemplate(CHATML)
    ids = template.encode(tokenizer, user(content))
    start, end = (tokenizer.special_names[n] for n in ("<|im_start|>", "<|im_end|>"))
    inner = tokenizer.encode(f"user\n{content}").tolist()
    tail = [end, *tokenizer.encode("\n").tolist(), start, *tokenizer.encode("assistant\n").tolist()]
    assert list(ids) == [start, *inner, *tail]


def test_a_character_that_is_none_cannot_be_forged(tokenizer):
    for where in ({"role": "user", "content": "a\ud800"}, {"role": "user", "content": [{"text": "\udfff"}]}):
        with pytest.raises(TemplateError, match=r"messages\[0\]\.content.*surrogate"):
            ChatTemplate(CHATML).encode(tokenizer, [where])


def test_a_template_that_reads_its_own_special_tokens_is_refused(tokenizer):
    source = "{% set x = '<s>' %}{% if x == '<s>' %}yes{% else %}no{% endif %}"
    assert ChatTemplate(source).render([]) == "yes"
    with pytest.raises(TemplateError, match="another text"):
        ChatTemplate(source).encode(tokenizer, [])


def test_a_template_may_look_for_special_tokens_in_messages(tokenizer):
    source = (
        "{% for m in messages %}{% if '<s>' in m.content or m.content.startswith('</s>') %}found{% endif %}{% endfor %}"
    )
    template = ChatTemplate(source)
    assert tokenizer.decode(template.encode(tokenizer, user("a <s>"))) == "found"
    assert template.encode(tokenizer, user("a")) == ()


def test_it_behaves_as_hugging_face_has_it():
    blocks = ChatTemplate(
        "{% for m in messages %}\n  {% if loop.first %}{% continue %}{% endif %}\n"
        "{% generation %}{{ m.content }}!{% endgeneration %}\n{% endfor %}"
    )
    assert blocks.render([*user("a"), *user("b")]) == "b!"
    tojson = ChatTemplate("{{ messages | tojson }}|{{ messages | tojson(indent=2) }}")
    messages = [{"role": "user", "content": "<é & 'x'>"}]
    assert (
        tojson.render(messages)
        == f"{json.dumps(messages, ensure_ascii=False)}|{json.dumps(messages, ensure_ascii=False, indent=2)}"
    )
    assert ChatTemplate("{{ strftime_now('%Y') }}").render([]) == str(datetime.datetime.now().year)
    assert ChatTemplate("{{ nothing }}{{ tools is none }}{{ think }}").render([], think=True) == "TrueTrue"
    assert (
        ChatTemplate("{% set ns = namespace(n=1) %}{% set ns.n = ns.n + 1 %}{{ ns.n ~ 'x' }}{{ messages[1:] }}").render(
            user("a")
        )
        == "2x[]"
    )


def test_messages_are_given_as_plain_copies():
    messages = user("a")
    with pytest.raises(TemplateError, match="unsafe"):
        ChatTemplate("{{ messages.append(1) }}").render(messages)
    assert messages == user("a")
    with pytest.raises(TemplateError, match=r"messages\[0\]\.content: is object"):
        ChatTemplate("x").render([{"role": "user", "content": object()}])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ raise_exception('Roles must alternate!') }}", "says: Roles must alternate!"),
        ("{{ messages[0].no.no }}", "misses something: .*has no attribute 'no'"),
        ("{{ 'a' + messages[0].number }}", "fails on these messages .TypeError"),
    ],
)
def test_what_a_template_says_is_quoted(source, message):
    with pytest.raises(TemplateError, match=message) as caught:
        ChatTemplate(source).render([{"role": "user", "content": "a", "number": 1}])
    assert caught.value.where == "messages"


@pytest.mark.parametrize(
    "source", ["{% for %}", "{{ 'a' }", "{% if x %}", "{{ x | nothing }}", "{% nothing %}", "(" * 3 + "{{" + "(" * 5000]
)
def test_a_broken_template_is_refused_at_once(source):
    with pytest.raises(TemplateError, match="broken|nested too deeply"):
        ChatTemplate(source).render([])


def test_what_a_template_supports():
    assert not ChatTemplate(CHATML).supports_tools
    assert ChatTemplate(CHATML).supports_system
    assert ChatTemplate(TOOLS).supports_tools
    assert not ChatTemplate(TOOLS).supports_system
    assert not ChatTemplate(
        "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}"
    ).supports_system


def test_limits_are_far_from_what_is_real(tokenizer):
    messages = [{"role": ["user", "assistant"][i % 2], "content": "word " * 200} for i in range(200)]
    start = time.process_time()
    assert len(ChatTemplate(CHATML).encode(tokenizer, messages)) > 200_000
    assert time.process_time() - start < sandbox.SECONDS
