#!/usr/bin/env python3
"""Renders small templates, one for each thing that chat templates do, with transformers.

    python -B templates.py

README.md beside this file says what `template_features.json` holds. All templates are ours.
"""

import json
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

HERE = Path(__file__).resolve().parent
BOS, EOS = "<s>", "</s>"

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi <there> & 'you'"},
    {"role": "assistant", "content": "Hé 👋\n"},
    {"role": "user", "content": "  and\nnow? "},
    {"role": "assistant", "content": "Bye."},
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look_up",
            "description": 'Finds "things" — <fast>',
            "parameters": {
                "type": "object",
                "properties": {
                    "query": {"type": "string", "description": "What?"},
                    "items": {"type": "array", "items": {"type": "integer"}, "default": []},
                    "ratio": {"type": "number", "default": 1.0, "enum": [0.5, 1e-7, 1e20]},
                },
                "required": ["query"],
            },
        },
    },
    {"type": "function", "function": {"name": "noop", "parameters": {}}},
]
CALLS = [
    {"role": "user", "content": "Find it."},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "look_up", "arguments": {"query": "ä", "items": [1, 2]}},
            },
            {"type": "function", "function": {"name": "noop", "arguments": {}}},
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": '{"found": true}'},
    {"role": "assistant", "reasoning": "It is there.", "content": "Found."},
]
DOCUMENTS = [{"title": "A", "text": "One."}, {"title": "B", "text": "Two\nlines."}]
AWKWARD = {
    "floats": [1.0, -0.0, 0.1, 1e15, 1e16, 1e20, 1.5e300, 5e-324, 1e-4, 1e-5, 1.25e-7, 123456.789],
    "whole": [0, -1, 9007199254740993, 18446744073709551615, -9223372036854775808],
    "empty": [[], {}, [[]], [{}], {"a": []}, {"a": {}}, ""],
    "words": [None, True, False],
    "controls": "".join(map(chr, range(0x20))) + "\x7f\x80\x9f",
    "separators": "\u2028\u2029\u0085\ufeff\u200b\u00a0\u00ad",
    "quotes": "\"'\\/<>&`",
    "letters": "éÄ漢字👩‍👩‍👧\U0010ffff\ue000\u0301",
    "": {"zeta": 1, "alpha": {"b": 1, "a": 2}, "Ä": 3, "Z": 4},
}
CLOCKS = [
    datetime(2024, 7, 9, 5, 6, 7),
    datetime(2024, 2, 29, 0, 0, 0),
    datetime(1999, 12, 31, 23, 59, 59),
    datetime(2025, 1, 5, 12, 30, 0),
    datetime(1969, 7, 20, 20, 17, 40),
]

# Name, template, and what is not the default: messages, tools, documents, open, clock, extra.
CASES = []


def case(name, template, **given):
    CASES.append({"name": name, "template": template, **given})


# --- JSON ----------------------------------------------------------------------------------------

for options in (
    "",
    "(indent=2)",
    "(indent=0)",
    "(indent='\t')",
    "(indent=none)",
    "(separators=(',', ':'))",
    "(indent=1, separators=(' ,', ' : '))",
    "(sort_keys=true)",
    "(ensure_ascii=true)",
    "(false, 4)",
    "(indent=true)",
):
    case(f"tojson{options}", "{{ awkward | tojson" + options + " }}", extra={"awkward": AWKWARD})
case("tojson of parts", "{% for k, v in awkward.items() %}{{ k }}={{ v | tojson }};{% endfor %}",
     extra={"awkward": AWKWARD})
case("tojson of literals",
     "{{ {'b': 1, 'a': [1.0, 1e20, 2 ** 80, -3, 'x' ~ 1], true: none, 2: 3, none: 4, 1.5: 5}"
     " | tojson }}{{ 'a' | tojson }}{{ none | tojson }}{{ 1e16 | tojson }}{{ (1, 2) | tojson }}")
case("tojson of messages", "{{ messages | tojson }}{{ messages[1:] | tojson(indent=2) }}",
     messages=CALLS)
case("tojson within text",
     "{{ 'a' + ([1] | tojson) + 'b' }}{% set j = tools | tojson %}{{ j | length }}",
     tools=TOOLS)
case("tojson of a list", "{{ messages | map(attribute='role') | list | tojson }}")

# --- time ----------------------------------------------------------------------------------------

for at, clock in enumerate(CLOCKS):
    case(f"strftime_now {at}",
         "{{ strftime_now('%Y-%m-%d|%y|%b|%B|%a|%A|%H:%M:%S|%j|%p|%I|%e|%-d|%-m|%-H|%-I|%-M|%-S|"
         "%-j|%-e|%-y|%%|é') }}",
         clock=clock)
case("strftime_now in a macro",
     "{% macro today() %}Today: {{ strftime_now('%d %b %Y') }}{% endmacro %}"
     "{% for m in messages %}{{ today() }}{% endfor %}", clock=CLOCKS[0])
case("strftime_now if there",
     "{% if strftime_now is defined %}{% set d = strftime_now('%d') %}{% endif %}{{ d }}",
     clock=CLOCKS[0])

# --- generation ----------------------------------------------------------------------------------

for left in ("", "-", "+"):
    for right in ("", "-", "+"):
        case(f"generation {{%{left} {right}%}}",
             "{% for m in messages %}\n"
             "  {{ m.role }}: \n"
             f"  {{%{left} generation {right}%}}\n"
             "  {{ m.content }} \n"
             f"  {{%{left} endgeneration {right}%}}\n"
             "  end \n"
             "{% endfor %}\n")
case("generation mixed signs",
     "{%- for m in messages -%}\n<|{{ m.role }}|>\n"
     "{%- if m.role == 'assistant' -%}\n"
     "{% generation -%}  {{ m.content }}  {{ eos_token }}{%- endgeneration %}\n\n"
     "{%- else -%}{{ m.content }}{{ eos_token }}{%- endif -%}\n{%- endfor -%}\n"
     "{%- if add_generation_prompt %}<|assistant|>{% endif %}", open=True)
case("generation on one line",
     "a{%generation%}b{%endgeneration%}c{%-generation-%} d {%-endgeneration-%} e")
case("generation over lines", "a\n{%\n  generation\n%}\nb\n{%-\nendgeneration\n-%}\nc")
case("generation with colon", "a{% generation: %}b{% endgeneration %}c")
case("generation empty", "a{% generation %}{% endgeneration %}b")
case("generation at both ends",
     "{% generation %}é{% endgeneration %}漢{% generation %}👋{% endgeneration %}")
case("generation in a loop with loop variables",
     "{% for m in messages %}{% generation %}{{ loop.index }}{% if not loop.last %},{% endif %}"
     "{{ loop.previtem.role if loop.previtem is defined }}{% endgeneration %};{% endfor %}")
case("generation has a scope",
     "{% set y = 1 %}{% generation %}{% set y = 2 %}{{ y }}{% endgeneration %}{{ y }}"
     "{% for i in [1, 2, 3] %}{% generation %}{{ y }}{% endgeneration %}{% set y = y + i %}"
     "{% endfor %}")
case("generation sees a namespace",
     "{% set ns = namespace(n=0) %}{% for m in messages %}{% generation %}{% set ns.n = ns.n + 1 %}"
     "{{ ns.n }}{% endgeneration %}{% endfor %}={{ ns.n }}")
case("generation holds loops and conditions",
     "x{% generation %}{% for i in range(5) %}{% if i == 1 %}{% continue %}{% endif %}"
     "{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}{% endgeneration %}y")
case("generation nested",
     "a{% generation %}b{% generation %}c{% endgeneration %}d{% endgeneration %}e")
case("generation in a macro",
     "{% macro say(m) %}[{% generation %}{{ m.content }}{% endgeneration %}]{% endmacro %}"
     "{% for m in messages %}{{ say(m) }}{% endfor %}")
case("generation in a set block",
     "é{% set x %}q{% generation %}漢{% endgeneration %}{% endset %}zz{{ x }}")
case("generation in a filter block",
     "a{% filter upper %}q{% generation %}b{% endgeneration %}{% endfilter %}c")
case("generation in names only",
     "{# {% generation %} don't #}{{ '{% generation %}' }}{% raw %}{% generation %}{% endraw %}"
     "{% set generation = {'a': {'b': '%}'}} %}{{ generation.a.b }}{{ {'a': {'b': 1}}['a']}}")
case("generation of private characters",
     "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}\ue000{% endfor %}",
     messages=[{"role": "user", "content": "\ue000a\ue001\uf8ff\U000f0000"},
               {"role": "user", "content": "\ue001"}])

# --- white space ---------------------------------------------------------------------------------

case("trim_blocks and lstrip_blocks",
     "a\n  {% if true %}\n  b\n  {% endif %}\n\tc {% if true %} d"
     "{% endif %}\n  {# note #}\n  e  {{ 1 }}\n\n")
case("signs",
     "a  {%- if true %}  b  {%- endif -%}  c  {{- 1 -}}  d  {#- note -#}  e {%+ if true +%}\n f "
     "{% endif %}")
case("newlines of other systems",
     "a\r\n{% if true %}\r\nb{% endif %}\rc{{ 'd\r\ne' | length }}\r\n")
case("one newline goes at the end", "a\n\n")
case("raw", "{% raw %}\n {{ a }} {% b %}\n{% endraw %}\nc{%- raw -%}  {{ d }}  {%- endraw -%}  e")

# --- what templates get --------------------------------------------------------------------------

case("context",
     "{{ bos_token }}{{ eos_token }}{{ tools is defined }}{{ tools is none }}"
     "{{ documents is none }}"
     "{{ add_generation_prompt }}{{ pad_token is defined }}{{ pad_token }}|{{ missing }}|"
     "{{ (missing.a is defined) if missing }}")
case("open", "{% if add_generation_prompt %}open{% endif %}", open=True)
case("extra", "{{ enable_thinking }}{{ extra.a[1] }}{{ bos_token }}",
     extra={"enable_thinking": False, "extra": {"a": [1, 2.5]}, "bos_token": "other"})
case("tools",
     "{% if tools %}{% for tool in tools %}{{ tool.function.name }}:"
     "{% for name, spec in tool.function.parameters.properties | items %}"
     "{{ name }}={{ spec.type }}{{ '*' if name in tool.function.parameters.required }},"
     "{% endfor %}\n"
     "{{ tool | tojson(indent=4) }}\n{% endfor %}{% endif %}", tools=TOOLS)
case("tool calls",
     "{% for m in messages %}{% if m.tool_calls is defined and m.tool_calls %}"
     "{% for call in m.tool_calls %}{{ call.id | default('none') }} {{ call.function.name }}"
     "({{ call.function.arguments | tojson }}){% for k, v in call.function.arguments.items() %}"
     "<{{ k }}>{{ v }}</{{ k }}>{% endfor %};{% endfor %}"
     "{% elif m['role'] == 'tool' %}{{ m.tool_call_id }}->{{ m['content'] }}"
     "{% else %}{{ m.content }}{% if m.reasoning_content %}[{{ m.reasoning_content }}|"
     "{{ m.thinking }}]{% endif %}"
     "{% endif %}{{ 'content' in m }}\n{% endfor %}", messages=CALLS, tools=TOOLS)
case("documents",
     "{% for d in documents %}{{ loop.index }}. {{ d.title }}: {{ d['text'] | indent(2) }}\n"
     "{% endfor %}"
     "{{ documents | length }}", documents=DOCUMENTS)
case("parts of content",
     "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}"
     "{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}"
     "{% elif 'image' in part %}<image>"
     "{% endif %}{% endfor %}"
     "{{ m.content | selectattr('type', 'equalto', 'text') | map(attribute='text') | join('+') }}"
     "{% endif %}{% endfor %}",
     messages=[{"role": "user", "content": "a"},
               {"role": "user", "content": [{"type": "text", "text": "b"},
                                            {"type": "image", "image": "c"},
                                            {"type": "text", "text": "d"}]}])

# --- statements ----------------------------------------------------------------------------------

case("namespace",
     "{% set ns = namespace(found=false, n=0, last='') %}{% for m in messages %}"
     "{% if m.role == 'user' %}{% set ns.found = true %}{% set ns.n = ns.n + 1 %}"
     "{% set ns.last = m.content %}"
     "{% endif %}{% endfor %}{{ ns.found }} {{ ns.n }} {{ ns.last }}{{ ns.other is defined }}")
case("loop controls",
     "{% for m in messages %}{% if loop.index0 == 1 %}{% continue %}{% endif %}"
     "{% if loop.index == 4 %}{% break %}{% endif %}{{ m.role }},{% endfor %}")
case("loop variables",
     "{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}"
     "{{ loop.revindex0 }}"
     "{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.cycle('a', 'b') }}"
     "{{ loop.changed(m.role) }}"
     "{{ loop.previtem.role if not loop.first }}>{{ loop.nextitem.role if not loop.last }}\n"
     "{% endfor %}")
case("loop over nothing",
     "{% for m in [] %}x{% else %}none{% endfor %}{% for m in missing %}x{% else %}none"
     "{% endfor %}")
case("loop with a filter",
     "{% for m in messages if m.role != 'system' %}{{ loop.index }}{{ m.role }}{{ loop.last }} "
     "{% endfor %}")
case("recursive loop",
     "{% for n in tree recursive %}{{ n.name }}{% if n.sub %}({{ loop(n.sub) }}){% endif %}"
     "{{ loop.depth }}{% endfor %}",
     extra={"tree": [{"name": "a", "sub": [{"name": "b", "sub": []}, {"name": "c"}]}]})
case("macros",
     "{% macro tag(name, text='-', upper=false) %}<{{ name | upper if upper else name }}>{{ text }}"
     "{{ caller() if caller }}</{{ name }}>{% endmacro %}"
     "{{ tag('a') }}{{ tag('b', 'c') }}{{ tag('d', upper=true) }}{% call tag('e') %}inner"
     "{% endcall %}"
     "{% macro down(n) %}{{ n }}{% if n > 0 %}{{ down(n - 1) }}{% endif %}{% endmacro %}"
     "{{ down(3) }}")
case("set",
     "{% set a, b = 1, 'two' %}{{ a }}{{ b }}{% set c %}x{{ a }}{% endset %}{{ c | upper }}"
     "{% if true %}{% set a = 5 %}{% endif %}{{ a }}{% for i in [1] %}{% set a = 9 %}"
     "{% endfor %}{{ a }}"
     "{% with z = a + 1 %}{{ z }}{% endwith %}{% set d | trim %}  e  {% endset %}[{{ d }}]")
case("inline conditions",
     "{{ 'a' if true else 'b' }}{{ 'c' if false }}{{ (missing or 'd') }}{{ none or 'e' }}"
     "{{ eos_token[:0] and 'f' }}")
case("elif",
     "{% for m in messages %}{% if m.role == 'system' %}s{% elif m.role == 'user' %}u{% else %}a"
     "{% endif %}{% endfor %}")
case("filter block", "{% filter upper | trim %}  abc {{ 1.5 }} {% endfilter %}")

# --- expressions ---------------------------------------------------------------------------------

case("strings",
     "{{ ' a b '.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ ' a'.lstrip() }}|"
     "{{ 'a\\n'.rstrip('\\n') }}|"
     "{{ '\\x1c a\\u00a0'.strip() }}|{{ 'a-b-c'.split('-') }}|{{ 'a-b-c'.split('-', 1) }}|"
     "{{ 'a-b-c'.rsplit('-', 1) }}|"
     "{{ ' a  b c '.split() }}|{{ ' a  b c '.split(none, 1) }}|{{ ' a  b c '.rsplit(none, 1) }}|"
     "{{ 'a--b'.split('-') }}|"
     "{{ ''.split() }}|{{ ''.split('-') }}|{{ 'a</t>b</t>c'.split('</t>')[-1] }}|"
     "{{ 'a-b'.split('-', maxsplit=1)[0] }}")
case("more strings",
     "{{ 'abc'.startswith('ab') }}{{ 'abc'.startswith(('x', 'a')) }}{{ 'abc'.endswith('c') }}"
     "{{ 'aXbX'.replace('X', '-') }}"
     "{{ 'aXbX'.replace('X', '-', 1) }}{{ 'éab'.find('b') }}{{ 'éabab'.rfind('b') }}"
     "{{ 'a'.find('z') }}"
     "{{ 'aaa'.count('a') }}{{ 'ab'.count('') }}{{ 'Ab'.upper() }}{{ 'Ab'.lower() }}"
     "{{ 'hello wORLD'.title() }}{{ \"o'neil a1b\".title() }}"
     "{{ 'hELLO'.capitalize() }}{{ ','.join(['a', 'b']) }}{{ 'a b'.islower() }}"
     "{{ 'A1'.isupper() }}{{ ''.isdigit() }}"
     "{{ '12'.isdigit() }}{{ 'ab'.isalpha() }}{{ 'a1'.isalnum() }}{{ ' '.isspace() }}"
     "{{ ''.isspace() }}"
     "{{ 'prefix-a'.removeprefix('prefix-') }}{{ 'a.txt'.removesuffix('.txt') }}"
     "{{ 'a=b=c'.partition('=') | list }}"
     "{{ 'a=b=c'.rpartition('=') | list }}{{ 'abc'.partition('=') | list }}"
     "{{ 'a\\nb\\r\\nc\\u2028d\\n'.splitlines() }}"
     "{{ 'a\\nb\\n'.splitlines(true) }}")
case("slices",
     "{{ 'héllo'[1:3] }}{{ 'héllo'[-3:] }}{{ 'héllo'[:-1] }}{{ 'héllo'[::-1] }}"
     "{{ 'héllo'[::2] }}{{ 'héllo'[-1] }}"
     "{{ 'héllo'[0] }}{{ 'abc'[5] }}{{ 'abc'[1:10] }}{{ 'abc'[5:] }}{{ messages[-1].role }}"
     "{{ messages[1:][0].role }}"
     "{{ messages[:-1] | length }}{{ messages[::-1][0].content }}"
     "{{ messages[1:3] | map(attribute='role') | join(',') }}"
     "{{ messages[10] is defined }}{{ messages[1:][-1].role }}"
     "{{ (messages[1:] + messages[:1])[-1].role }}")
case("slices with steps",
     "{% for n in ['', 'a', 'héllo'] %}{{ n[::-1] }}|{{ n[::2] }}|{{ n[3:0:-1] }}|"
     "{{ n[0:2:-1] }}|{{ n[-1:0:-2] }}|"
     "{{ n[-9:9:2] }}|{{ n[9::-3] }}|{{ n[1::1] }}|{{ n[ : -1 : 1 ] }}\n{% endfor %}"
     "{{ messages[::-1][0].content }}"
     "{{ [][::-1] }}{{ [1, 2, 3, 4][::-2] }}"
     "{{ [1, 2, 3][messages[::-1][0].content | length:0:-1] }}"
     "{% for m in messages[::-1] %}{{ m.role }}{{ loop.index }}{% endfor %}{{ '[::-1]' }}")
case("concatenation of lists and dicts",
     "{% for m in messages %}{{ m.role ~ ': ' ~ m.content }}{{ m.content | upper }}{% endfor %}"
     "{{ '' ~ messages[0] }}",
     messages=[{"role": "user", "content": [{"type": "text", "text": "it's"},
                                            {"a": 1.0, "b": None, "c": []}]}])
case("concatenation",
     "{{ 'a' ~ 1 ~ none ~ true ~ 1.5 ~ missing ~ 'b' }}{{ 'a' + 'b' + 'c' }}{{ [1] + [2, 'x'] }}"
     "{{ 'ab' * 3 }}")
case("numbers",
     "{{ 1 }} {{ 1.0 }} {{ 1e20 }} {{ 1e16 }} {{ 123456789012345.6 }} {{ 0.1 + 0.2 }} "
     "{{ 1e-5 }} {{ 0.0001 }} {{ -0.0 }}"
     " {{ 7 / 2 }} {{ 6 / 2 }} {{ 7 // 2 }} {{ 7 % 3 }} {{ 2 ** 10 }} {{ 2 ** 70 }} "
     "{{ 7.5 // 2 }} {{ 1_000 }} {{ -3 }} {{ 3 - 5 }}"
     " {{ 2.5 | round }} {{ 3.5 | round }} {{ 2.675 | round(2) }} {{ 5 | round }} "
     "{{ 2.1 | round(method='ceil') }}"
     " {{ 2.9 | round(0, 'floor') }} {{ 1234.5 | round(-2) }} {{ 3.7 | int }} {{ '42' | int }} "
     "{{ ' 4_2 ' | int }} {{ '3.9' | int }}"
     " {{ 'x' | int }} {{ 'x' | int(-1) }} {{ none | int }} {{ '1.5' | float }} "
     "{{ 'x' | float(2.0) }} {{ 3 | float }} {{ true | int }}"
     " {{ -5 | abs }} {{ [1, 2.5] | sum }} {{ [3, 1] | min }} {{ [3, 1] | max }}")
case("values as text",
     "{{ true }} {{ none }} {{ [] }} {{ {} }} "
     "{{ [1, 'a', \"it's\", 'say \"hi\"', none, true, 1.0, 1e20, ['b'], {'c': 'd'}] }}"
     " {{ awkward }} {{ ['a\\n\\t\\\\\\'\"'] }} {{ messages[:1] }} {{ [1e16] | string }} "
     "{{ ['x', 1.0, [2]] | join('|') }}",
     extra={"awkward": AWKWARD})
case("dicts",
     "{% set d = {'b': 1, 'a': 2, 'items': 3, 'get': 4} %}{% for k, v in d.items() %}{{ k }}"
     "{{ v }}{% endfor %}"
     "{{ d.keys() | list }}{{ d.values() | list }}{{ d.get('a') }}{{ d.get('z') }}"
     "{{ d.get('z', 'no') }}{{ d['items'] }}"
     "{{ 'a' in d }}{{ 'z' not in d }}{{ d | length }}{% for k, v in d | dictsort %}{{ k }}"
     "{{ v }}{% endfor %}"
     "{{ d | list }}{{ dict(x=1, y=2) }}{{ dict(d, a=5)['a'] }}"
     "{{ d == {'a': 2, 'b': 1, 'items': 3, 'get': 4} }}")
case("tests",
     "{{ missing is defined }}{{ missing is undefined }}{{ none is none }}{{ 1 is number }}"
     "{{ true is number }}{{ 1.0 is float }}"
     "{{ 1 is integer }}{{ true is integer }}{{ 'a' is string }}{{ [] is sequence }}"
     "{{ 'a' is sequence }}{{ {} is sequence }}"
     "{{ 1 is sequence }}{{ {} is mapping }}{{ [] is mapping }}{{ 'a' is iterable }}"
     "{{ none is iterable }}{{ missing is iterable }}"
     "{{ 3 is odd }}{{ 4 is even }}{{ 4 is divisibleby(2) }}{{ true is boolean }}"
     "{{ true is true }}{{ 0 is false }}{{ 1 is eq 1 }}"
     "{{ 'a' is in ['a'] }}{{ 1 is not string }}{{ messages[1:] is sequence }}"
     "{{ 'a b' is lower }}{{ 'A1' is upper }}{{ '' is lower }}{{ 1 is lower }}"
     "{{ x is defined and x }}")
case("comparisons",
     "{{ 1 == 1.0 }}{{ '1' == 1 }}{{ 1 < 2 < 3 }}{{ 'a' < 'b' }}{{ [1, 2] == [1, 2] }}"
     "{{ not true }}{{ 1 in [1] }}{{ 'b' in 'abc' }}"
     "{{ 'x' in missing }}{{ none == false }}{{ true and 'yes' }}{{ 1 != 2 }}"
     "{{ (1 == 1) != (2 == 3) }}{{ '' == none }}")
case("filters on lists",
     "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}"
     "{{ messages | rejectattr('role', 'eq', 'user') | map(attribute='role') | list }}"
     "{{ messages | map(attribute='content') | map('trim') | map('upper') | join('/') }}"
     "{{ messages | map(attribute='x', default='-') | join }}"
     "{{ [3, 1, 2] | sort }}{{ [3, 1, 2] | sort(reverse=true) | first }}"
     "{{ messages | sort(attribute='role') | map(attribute='role') | first }}"
     "{{ ['b', 'a', 'b'] | unique | list }}{{ [1, 2, 3] | last }}"
     "{{ [1, 2, 3] | reverse | list }}{{ [1, 2, 3, 4] | batch(2) | list }}"
     "{{ [0, 1, '', 'a', none] | select | list }}{{ [1, 2, 3] | reject('odd') | list }}"
     "{{ 'abc' | list }}{{ 'abc' | first }}{{ [] | first is defined }}"
     "{% for role, group in messages | groupby('role') %}{{ role }}{{ group | length }}"
     "{% endfor %}{{ messages | join(',', attribute='role') }}")
case("filters on text",
     "{{ ' a ' | trim }}|{{ 'xax' | trim('x') }}|{{ 'a b-c it\\'s <x' | title }}|"
     "{{ 'aB' | upper }}{{ 'aB' | lower }}{{ 'aB c' | capitalize }}|"
     "{{ 'a-b-c' | replace('-', '+') }}{{ 'a-b-c' | replace('-', '+', 1) }}|"
     "{{ 'a\\nb\\n\\nc' | indent }}|{{ 'a\\nb\\n' | indent(2, true) }}|"
     "{{ 'a\\n\\nb' | indent(width=1, blank=true) }}|"
     "{{ 'a\\nb' | indent('> ') }}|{{ missing | default('d') }}{{ '' | default('e') }}"
     "{{ '' | default('f', true) }}{{ none | default('g', boolean=true) }}"
     "{{ none | default('h') }}{{ missing | default(none) }}{{ missing | d }}|"
     "{{ '<a href=\"x\">&\\'' | e }}|{{ missing | length }}{{ 'é' | length }}|"
     "{{ missing | first is defined }}{{ {'a': 1} | last }}"
     "{{ 'é' | string }}{{ 5 | string + 'x' }}{{ 'x' | safe }}{{ 1.0 | string }}"
     "{{ '%s is %d' | format('a', 3) }}|{{ 'abc' | reverse }}")
case("escapes", "{{ 'a\\tb\\nc\\\\d\\'e\\u00e9\\x41\\q' }}{{ \"it's\" }}{{ 'a' 'b' }}")
case("ranges",
     "{% for i in range(3) %}{{ i }}{% endfor %}{{ range(1, 10, 3) | list }}"
     "{{ range(3, 0, -1) | list }}{{ range(0) | list }}")
case("globals",
     "{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{{ c.next() }}"
     "{% set j = joiner('-') %}{{ j() }}{{ j() }}")
case("refuses some",
     "{% for m in messages %}{% if m.role == 'bot' %}{{ raise_exception('who?') }}{% endif %}"
     "{% endfor %}fine")
case("roles alternate",
     "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
     "{% set system = messages[0]['content'] | trim %}"
     "{% else %}{% set loop_messages = messages %}{% endif %}{% for message in loop_messages %}"
     "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
     "{{ raise_exception('must alternate') }}{% endif %}"
     "{% if loop.first and system is defined %}{{ '<<' + system + '>>' }}{% endif %}"
     "{{ bos_token + '[' + message['content'].strip() + ']' if message['role'] == 'user' else "
     "message['content'] + eos_token }}{% endfor %}")

# Templates, or conversations, that transformers refuses.
ERRORS = [
    {"name": "raise_exception", "template": "{{ raise_exception('no ' ~ 'tools') }}"},
    {"name": "unknown statement", "template": "{% nothing %}"},
    {"name": "open generation", "template": "{% generation %}z"},
    {"name": "end without generation", "template": "{% endgeneration %}z"},
    {"name": "generation with words", "template": "{% generation x %}z{% endgeneration %}"},
    {"name": "crossed generation",
     "template": "{% generation %}{% for m in messages %}{% endgeneration %}{% endfor %}"},
    {"name": "break out of generation",
     "template": "{% for m in messages %}{% generation %}{% break %}"
     "{% endgeneration %}{% endfor %}"},
    {"name": "tojson of undefined", "template": "{{ missing | tojson }}"},
    {"name": "part of undefined", "template": "{{ missing.a.b }}"},
    {"name": "call of undefined", "template": "{{ missing() }}"},
    {"name": "sum of text and number", "template": "{{ 'a' + 1 }}"},
    {"name": "sum with undefined", "template": "{{ 'a' + missing }}"},
    {"name": "unknown filter", "template": "{{ 1 | nothing }}"},
    {"name": "unknown method", "template": "{{ 'a'.nothing() }}"},
    {"name": "unfinished expression", "template": "{{ 'a' "},
    {"name": "empty separator", "template": "{{ 'a'.split('') }}"},
    {"name": "absent part", "template": "{{ 'a'.index('b') }}"},
    {"name": "append", "template": "{% set l = [] %}{{ l.append(1) }}"},
    {"name": "message that is no object", "template": "{{ messages }}", "messages": ["hi"]},
]


class Fixed(datetime):
    """A clock that stands still."""

    moment = CLOCKS[0]

    @classmethod
    def now(cls, tz=None):
        return cls.moment


def render(tokenizer, given):
    """Returns the text and the bytes of its generated parts."""
    Fixed.moment = given.get("clock", CLOCKS[0])
    messages = given.get("messages", TALK)
    options = {
        "tools": given.get("tools"),
        "documents": given.get("documents"),
        "chat_template": given["template"],
        "add_generation_prompt": given.get("open", False),
    }
    extra = given.get("extra", {})
    text = tokenizer.apply_chat_template(messages, tokenize=False, **options, **extra)
    # What apply_chat_template gives render_jinja_template, with the blocks' places kept.
    rendered, places = chat_template_utils.render_jinja_template(
        [chat_template_utils._normalize_chat_messages(messages)],
        return_assistant_tokens_mask=True,
        **options,
        **{**tokenizer.special_tokens_map, **extra},
    )
    assert rendered == [text], given["name"]
    byte = lambda at: len(text[:at].encode())
    return text, [[byte(start), byte(end)] for start, end in places[0]]


def recorded(given):
    """Returns what a case gives, as JSON can hold it."""
    given = {"messages": TALK, **given}
    if "awkward" in given.get("extra", {}):
        given["extra"] = {k: v for k, v in given["extra"].items() if k != "awkward"}
        given["awkward"] = True
    if "clock" in given:
        given["clock"] = int(given["clock"].replace(tzinfo=timezone.utc).timestamp())
    return given


def main():
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.BPE()), bos_token=BOS, eos_token=EOS
    )
    chat_template_utils.datetime = Fixed
    cases, errors = [], []
    for given in CASES:
        text, generated = render(tokenizer, given)
        cases.append({**recorded(given), "text": text, "generated": generated})
    for given in ERRORS:
        try:
            render(tokenizer, given)
        except Exception as error:
            errors.append({**recorded(given), "python_error": type(error).__name__})
        else:
            raise SystemExit(f"rendered, should not have: {given['name']}")
    packages = {p: version(p) for p in ("transformers", "jinja2", "tokenizers")}
    shared = {"versions": packages, "bos_token": BOS, "eos_token": EOS}
    shared |= {"default_messages": TALK, "awkward": AWKWARD}
    # What many cases share is written once.
    for one in cases + errors:
        if one["messages"] is TALK:
            del one["messages"]
    lines = [f"{json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in shared.items()]
    for key, rows in (("cases", cases), ("errors", errors)):
        rows = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in rows)
        lines.append(f"{json.dumps(key)}: [\n{rows}\n]")
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    json.loads(text)
    (HERE / "template_features.json").write_text(text, encoding="utf-8")
    size = len(text.encode())
    print(f"template_features.json: {len(cases)} cases, {len(errors)} errors, {size} bytes")


if __name__ == "__main__":
    main()
