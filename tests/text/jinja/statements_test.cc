// What Python's jinja2 3.1 prints for whole templates, with trim_blocks and lstrip_blocks.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "text/jinja/render_helper.h"

namespace efedllm::jinja {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr char kVariables[] =
    R"({"s": " Héllo wörld foo-bar ", "l": [3, 1, 2, "x", null, true, 1.5], "n": [3, 1, 2], "d": {"b": 1, "a": [1, 2], "C": {"k": "v"}}, "e": "", "z": null, "m": [{"r": "u", "c": "1", "k": {"y": 3}}, {"r": "a", "c": "2", "k": {"y": 1}}, {"r": "u", "c": "3"}], "t": "a,b,,c", "f": 2.5, "i": 7, "neg": -7, "words": ["b", "A", "c", "a"]})";

struct Case {
  const char* source;
  const char* printed;
};

// clang-format off
constexpr Case kCases[] = {
    {R"({% for x in n %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}{{ loop.previtem }}{{ loop.nextitem }};{% endfor %})", R"(10TrueFalse331;21FalseFalse3232;32FalseTrue311;)"},
    {R"({% for x in [] %}a{% else %}none{% endfor %})", R"(none)"},
    {R"({% for k,v in d.items() %}{{k}}={{v}} {% endfor %})", R"(b=1 a=[1, 2] C={'k': 'v'} )"},
    {R"({% for (k,v) in d|items %}{{k}}={{v}} {% endfor %})", R"(b=1 a=[1, 2] C={'k': 'v'} )"},
    {R"({% for x in l if x is string %}{{x}}{{loop.index}}{% endfor %})", R"(x1)"},
    {R"({% for x in n %}{% if x == 1 %}{% continue %}{% endif %}{{x}}{% if x==2 %}{% break %}{% endif %}{% endfor %})", R"(32)"},
    {R"({% set a = 1 %}{% for x in n %}{% set a = a + x %}{{a}} {% endfor %}{{a}})", R"(4 2 3 1)"},
    {R"({% set ns = namespace(a=1, b='x') %}{% for x in n %}{% set ns.a = ns.a + x %}{% endfor %}{{ns.a}}{{ns.b}}{{ns.c is defined}})", R"(7xFalse)"},
    {R"({% if x %}a{% elif i == 7 %}b{% else %}c{% endif %})", R"(b)"},
    {R"({% if true %}{% set q = 5 %}{% endif %}{{q}})", R"(5)"},
    {R"({% set a, b = 1, 2 %}{{a}}{{b}})", R"(12)"},
    {R"({% set (a, b) = (1, 2) %}{{a}}{{b}})", R"(12)"},
    {R"({% set a %}hello {{i}}{% endset %}[{{a}}]{{a|length}})", R"([hello 7]7)"},
    {R"({% set a | upper | trim %} hello {% endset %}[{{a}}])", R"([HELLO])"},
    {R"({% macro f(a, b=2, c='x') %}<{{a}},{{b}},{{c}}>{% endmacro %}{{ f(1) }}{{ f(1,c=5) }}{{ f() }}{{f(b=1,a=3)}})", R"(<1,2,x><1,2,5><,2,x><3,1,x>)"},
    {R"({% macro f(n) %}{{n}}{% if n > 0 %}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(4) }})", R"(43210)"},
    {R"({% macro w() %}[{{ caller() }}]{% endmacro %}{% call w() %}hi {{i}}{% endcall %})", R"([hi 7])"},
    {R"({% macro w() %}[{{ caller('a') }}]{% endmacro %}{% call(x) w() %}hi {{x}}{% endcall %})", R"([hi a])"},
    {R"({% filter upper %}abc {{ e }}x{% endfilter %})", R"(ABC X)"},
    {R"({% with a=1, b=2 %}{{a+b}}{% endwith %}{{a is defined}})", R"(3False)"},
    {R"({% generation %}abc{{i}}{% endgeneration %}!)", R"(abc7!)"},
    {R"({% raw %}{{ x }}{% y %}{% endraw %}z)", R"({{ x }}{% y %}z)"},
    {R"({%- raw -%}  {{ x }}  {%- endraw -%}  z)", R"({{ x }}z)"},
    {R"(a{# comment #}b {#- c -#} d)", R"(abd)"},
    {"line1\n{% if true %}\n  yes\n{% endif %}\nend\n", "line1\n  yes\nend"},
    {"line1\n   {% if true %}\n  yes\n   {% endif %}\nend\n\n", "line1\n  yes\nend\n"},
    {R"(a  {{- i -}}  b)", R"(a7b)"},
    {R"(a  {%- if true -%}  b  {%- endif -%}  c)", R"(abc)"},
    {"a\n  {{ i }}\n b", "a\n  7\n b"},
    {"  {% set x = 1 %}  \nq", "  \nq"},
    {R"(x {% set x = 1 %} y)", R"(x  y)"},
    {"{% if true +%}\nx{% endif %}", "\nx"},
    {R"(   {%+ if true %}x{% endif %})", R"(   x)"},
    {"a\r\nb\r\n", "a\nb"},
    {"\n\n{% if true %}x{% endif %}\n\n", "\n\nx"},
    {"{#- a -#}\n\n  b", R"(b)"},
    {"{# a #}\nb", R"(b)"},
    {"   {# a #}\nb", R"(b)"},
    {"a   {# a #}\nb", R"(a   b)"},
    {R"({{ '}}' }}{{ "%}" }}{{ {'a':{'b':1}} }})", R"(}}%}{'a': {'b': 1}})"},
    {R"({{ '{{' }})", R"({{)"},
    {R"({)", R"({)"},
    {R"({ { })", R"({ { })"},
    {R"(a{)", R"(a{)"},
    {R"({{ strftime_now('%d %b %Y') }} {{ strftime_now('%Y-%m-%d %H:%M:%S %B %A') }})", R"(24 Nov 2025 2025-11-24 16:00:00 November Monday)"},
    {R"({% for x in undefd %}a{% endfor %}b)", R"(b)"},
    {R"({% for c in 'héy' %}{{c}}-{% endfor %})", R"(h-é-y-)"},
    {R"({% for a in d %}{{a}}{% endfor %})", R"(baC)"},
    {R"({{ 'a' in x }})", R"(False)"},
    {R"({{ x|length }})", R"(0)"},
    {R"({{ d|tojson|safe }})", R"({"b": 1, "a": [1, 2], "C": {"k": "v"}})"},
    {R"({% set z = [] %}{% set _ = z.append(1) %}{{ z }})", R"([1])"},
    {R"({% for x in n %}{{ loop.cycle('a','b') }}{% endfor %})", R"(aba)"},
    {R"({% for x in n %}{% for y in n %}{{ loop.depth }}{{loop.index}}{% endfor %}{{loop.index}}{% endfor %})", R"(111213111121321112133)"},
    {"{%- for x in n -%}\n {{ x }}\n {%- endfor %}", R"(312)"},
    {R"({% set x = 1, 2 %}{{ x }})", R"((1, 2))"},
    {R"({{ 1, 2 }})", R"((1, 2))"},
    {R"({% if not (s is string and i > 3) or z %}a{% else %}b{% endif %})", R"(b)"},
    {R"({{ ('a' if i==7 else 'b') + 'c' }})", R"(ac)"},
    {R"({% for i in range(3) %}{{ i }}{{ ',' if not loop.last }}{% endfor %})", R"(0,1,2)"},
    {R"({{ s[:3] + s[3:] == s }})", R"(True)"},
    {R"({% set a = {'x': 1} %}{{ a['x'] }}{{ a.x }}{{ a['y'] is defined }}{{ a.get('y', 'n') }})", R"(11Falsen)"},
    {"{% macro p(x) -%}\n  {{ x }}\n{%- endmacro %}\n{{ p(3) }}\n", R"(3)"},
    {R"({{ m[0].items()|list }})", R"([('r', 'u'), ('c', '1'), ('k', {'y': 3})])"},
    {R"({% set i = i + 1 %}{{ i }})", R"(8)"},
    {R"({% for x in n %}{% set i = i + x %}{{ i }}{% endfor %}{{ i }})", R"(10897)"},
    {R"({% macro m2() %}{{ late }}{% endmacro %}{% set late = 'L' %}{{ m2() }})", R"(L)"},
    {R"({% for q in n %}{% macro m3() %}{{ q }}{% endmacro %}{{ m3() }}{% endfor %})", R"(312)"},
    {R"({% set v %}{% for x in n %}{{x}}{% endfor %}{% endset %}{{ v }})", R"(312)"},
    {"{{ \"a\\\nb\" }}", R"(ab)"},
    {R"({% if i is number and i is divisibleby 7 %}y{% endif %})", R"(y)"},
    {R"({{ (s is string) ~ 'x' }})", R"(Truex)"},
    {R"({{ s is string and s is not none }})", R"(True)"},
    {R"({{ 'x' if s is string else 'y' }})", R"(x)"},
    {R"({{ s.foo }})", R"()"},
    {R"({{ m|map(attribute='c') | first }})", R"(1)"},
    {R"({{ n | map('string') | join('+') }})", R"(3+1+2)"},
    {R"({%if true%}x{%endif%})", R"(x)"},
    {R"({{i}}{{-i}})", R"(77)"},
    {R"({{i}} {{--i}})", R"(7-7)"},
    {R"({% if i==7%}seven{%endif-%}   x)", R"(sevenx)"},
    {"{% for x in n -%} a {% else -%} b {%- endfor +%}\nx", "a a a \nx"},
    {"{% set content = 'a' %}{{- content -}}\n\n{{- 'b' }}\n", R"(ab)"},
    {"\n{{ 'x' }}\n\n", "\nx\n"},
    {R"({{ m[0]['c']|int + 1 }})", R"(2)"},
    {R"({{ not x is defined }})", R"(True)"},
    {R"({{ 2 * 'a' ~ 'b' }})", R"(aab)"},
    {R"({{ d.C.k.upper().lower()[0] }})", R"(v)"},
    {R"({{ ''.join(['a','b']) }})", R"(ab)"},
    {R"({{ m|tojson(indent=4) }})", "[\n    {\n        \"r\": \"u\",\n        \"c\": \"1\",\n        \"k\": {\n            \"y\": 3\n        }\n    },\n    {\n        \"r\": \"a\",\n        \"c\": \"2\",\n        \"k\": {\n            \"y\": 1\n        }\n    },\n    {\n        \"r\": \"u\",\n        \"c\": \"3\"\n    }\n]"},
    {R"({{ [1,2,3][1:]|first }})", R"(2)"},
    {R"({{ {'a':1}.items()|list|tojson }})", R"([["a", 1]])"},
    {R"({{ 'a' 'b' ~ 'c' }})", R"(abc)"},
    {R"({{ [1,2,] }}{{ {'a':1,} }}{{ (1,) }})", R"([1, 2]{'a': 1}(1,))"},
    {R"({{ s | trim | length }})", R"(19)"},
    {R"({{ true and 'x' }})", R"(x)"},
    {R"({% if messages is defined and messages[0] %}x{% endif %})", R"()"},
    {R"({{ 'abc'[5] }}|{{ l[99] }}|)", R"(||)"},
    {R"({{ d|length }} {{ (d|items|list)[0][1] }})", R"(3 1)"},
    {R"({{ e or z or 'last' }})", R"(last)"},
    {R"({{ strftime_now('%-d') if false }}x)", R"(x)"},
    {"{%- macro render(x, depth=0) -%}{%- if x is mapping -%}{%- for k, v in x|items -%}{{ '  ' * depth }}{{ k }}: {{ render(v, depth + 1) }}\n{%- endfor -%}{%- else -%}{{ x }}{%- endif -%}{%- endmacro -%}{{ render(d) }}", R"(b: 1a: [1, 2]C:   k: v)"},
};
// clang-format on

TEST(JinjaStatements, PrintWhatPythonPrints) {
  for (const Case& c : kCases) EXPECT_EQ(Rendered(c.source, kVariables), c.printed) << c.source;
}

TEST(JinjaStatements, WhatPythonRefusesIsRefusedWithItsLine) {
  for (const char* source : {R"({ {% x)",
                             R"({{)",
                             R"({% if)",
                             R"({% if true %})",
                             R"({% endif %})",
                             R"({% foo %})",
                             R"({{ 1 + }})",
                             R"({{ foo() }})",
                             R"({{ x.y }})",
                             R"({{ x + 1 }})",
                             R"({{ 'a' + 1 }})",
                             R"({{ none + 'a' }})",
                             R"({{ s|nofilter }})",
                             R"({{ s is notest }})",
                             R"({% for x in z %}{% endfor %})",
                             R"({% set ns.a = 1 %})",
                             R"({% set d.a = 1 %})",
                             R"({{ 1/0 }})",
                             R"({{ range(200000)|length }})",
                             R"({{ l|sort }})",
                             R"({{ 'a' in 3 }})",
                             R"({{ 3 in 'a' }})",
                             R"({{ x in 'a' }})",
                             R"({{ f|length }})",
                             R"({{ z|length }})",
                             R"({{ x|tojson }})",
                             R"({% break %})",
                             R"({{ messages[0] }})",
                             R"({{ s.foo() }})",
                             R"({{ -m[0]['c']|int }})",
                             R"({% set a = b = 1 %})",
                             R"({{ a b }})",
                             R"({{ foo.bar.baz }})",
                             R"({{ d.nope.nope }})",
                             R"({% for a,b in [[1,2],[3]] %}{% endfor %})",
                             R"({{ 5|foo(1) }})",
                             R"({% call foo() %}{% endcall %})",
                             R"({% macro x() %}{% endmacro %}{{ x(1) }})",
                             R"({% macro x() %}{% endmacro %}{{ x(q=1) }})"}) {
    EXPECT_THAT(Rendered(std::string("{# #}\n{# #}\n") + source, kVariables),
                StartsWith("error: line 3: "))
        << source;
  }
}

TEST(JinjaStatements, WhatIsNotSupportedIsNamed) {
  EXPECT_THAT(Rendered("a\n{% include 'x' %}"),
              HasSubstr("line 2: {% include %} is not supported"));
  EXPECT_THAT(Rendered("{% import 'x' as y %}"), HasSubstr("{% import %} is not supported"));
  EXPECT_THAT(Rendered("{% extends 'x' %}"), HasSubstr("{% extends %} is not supported"));
  EXPECT_THAT(Rendered("{% for x in y recursive %}{% endfor %}"), HasSubstr("recursive loops"));
  EXPECT_THAT(Rendered("\n\n{{ 1|urlize }}"), HasSubstr("line 3: the filter \"urlize\""));
  EXPECT_THAT(Rendered("{{ 1 is prime }}"), HasSubstr("\"is prime\""));
  EXPECT_THAT(Rendered("{{ cycler(1) }}"), HasSubstr("\"cycler\" can't be called"));
  EXPECT_THAT(Rendered("{{ f(*x) }}"), HasSubstr("*args"));
  EXPECT_THAT(Rendered("{{ messages.x.y }}"), HasSubstr("\"messages\" is undefined"));
  EXPECT_THAT(Rendered("{{ raise_exception('only 2 turns') }}"),
              HasSubstr("the template says: only 2 turns"));
  EXPECT_THAT(Rendered("{{ f( }}"), HasSubstr("line 1: unexpected \"}\""));
  EXPECT_THAT(Rendered("{% if x %}\nabc"), HasSubstr("{% endif %} is missing"));
}

TEST(JinjaStatements, ListsCanGrow) {
  EXPECT_EQ(
      Rendered(
          "{% set x = [] %}{% for i in range(3) %}{% set _ = x.append(i) %}{% endfor %}{{ x }}"),
      "[0, 1, 2]");
  EXPECT_EQ(Rendered("{% set d = {} %}{% set _ = d.update({'a': 1}) %}{{ d }}"), "{'a': 1}");
}

TEST(JinjaStatements, TellTheTimeThatTheyAreGiven) {
  EXPECT_EQ(Rendered("{{ strftime_now('%d %b %Y, %H:%M') }}"), "24 Nov 2025, 16:00");
}

}  // namespace
}  // namespace efedllm::jinja
