#include "text/jinja/template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "text/jinja/render_helper.h"

namespace efedllm::jinja {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

std::string Repeated(const std::string& text, size_t times) {
  std::string repeated;
  for (size_t i = 0; i < times; ++i) repeated += text;
  return repeated;
}

TEST(JinjaMarks, AClientsTextStaysTheClientsWhateverIsDoneToIt) {
  const std::string variables = R"({"c": " One two|three ", "list": ["x", "y"], "d": {"k": "v"}})";
  const auto marked = [&](const char* source) { return Marked(source, variables); };
  EXPECT_EQ(marked("<{{ c }}>"), "<[ One two|three ]>");
  EXPECT_EQ(marked("{{ '<' + c + '>' }}"), "<[ One two|three ]>");
  EXPECT_EQ(marked("{{ '<' ~ c|trim ~ '>' }}"), "<[One two|three]>");
  EXPECT_EQ(marked("{{ ('<' + c)[2:6] }}"), "[One ]");
  EXPECT_EQ(marked("{{ ('ab' + c)[::-1] }}"), "[ eerht|owt enO ]ba");
  EXPECT_EQ(marked("{{ c.split('|')[0].upper() }}!"), "[ ONE TWO]!");
  EXPECT_EQ(marked("{{ c.split() | join('+') }}"), "[One]+[two|three]");
  EXPECT_EQ(marked("{{ c.replace('two', '2') }}"), "[ One ]2[|three ]");
  EXPECT_EQ(marked("{{ list|join(', ') }}"), "[x], [y]");
  EXPECT_EQ(marked("{{ d|tojson }}"), "{\"[k]\": \"[v]\"}");
  EXPECT_EQ(marked("{{ list }}"), "['[x]', '[y]']");
  EXPECT_EQ(marked("{% set x %}a{{ c|trim }}b{% endset %}{{ x|title }}"), "A[one Two|three]b");
  EXPECT_EQ(marked("{% macro m(t) %}<{{ t }}>{% endmacro %}{{ m(list[0]) }}"), "<[x]>");
  EXPECT_EQ(marked("{% filter upper %}a{{ list[0] }}{% endfilter %}"), "A[X]");
  EXPECT_EQ(marked("{{ '%s: %s'|format('a', list[1]) }}"), "a: [y]");
  EXPECT_EQ(marked("{{ ('a\n' + list[0])|indent(2) }}"), "a\n  [x]");
  EXPECT_EQ(marked("{% for k, v in d|items %}{{ k }}={{ v|e }};{% endfor %}"), "[k]=[v];");
  EXPECT_EQ(marked("{% for ch in list[0] + 'z' %}{{ ch }},{% endfor %}"), "[x],z,");
  EXPECT_EQ(marked("{{ list|map('capitalize')|join }}{{ c|length }}"), "[XY]15");
}

TEST(JinjaLimits, AHostileTemplateEndsWithAnError) {
  RenderLimits limits;
  limits.steps = 1'000'000;
  limits.memory_bytes = size_t{8} << 20;
  const std::string nested =
      Repeated("{% for a in range(99999) %}", 5) + "x" + Repeated("{% endfor %}", 5);
  for (const std::string& source : {
           nested,
           std::string("{{ 'x' * 999999999999 }}"),
           std::string("{{ ([0] * 99999999) | length }}"),
           std::string("{% set n = namespace(s='x') %}{% for i in range(60) %}"
                       "{% set n.s = n.s + n.s %}{% endfor %}"),
           std::string("{% set l = [1] %}{% for i in range(99999) %}"
                       "{% set _ = l.extend(l) %}{% endfor %}"),
           std::string("{% set l = ['a'] %}{% for i in range(99) %}{% set _ = l.append(l) %}"
                       "{% endfor %}{{ l }}"),
           std::string("{% set l = [] %}{% set _ = l.append(l) %}{{ l|tojson }}"),
           std::string("{% set a = [] %}{% set b = [] %}{% set _ = a.append(b) %}"
                       "{% set _ = b.append(a) %}{{ a == b }}{{ a < b }}"),
           std::string("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"),
           std::string("{% macro m(n) %}{{ m(n) ~ m(n) }}{% endmacro %}{{ m(1) }}"),
           std::string("{% set s = 'ab' * 99999 %}{{ s.replace('a', s) }}"),
           std::string("{% set s = 'a\n' * 9999 %}{{ s|indent(999)|indent(999)|indent(999) }}"),
           std::string("{% set s = 'ab' * 99999 %}{% for i in range(99999) %}"
                       "{% if s.find('zz') > 0 %}{% endif %}{% endfor %}"),
           std::string("{% set s = ['ab' * 99999] * 99999 %}{{ 'x' in s }}{{ s|join|length }}"),
           std::string("{% set s = 'ab' * 99999 %}{% set l = [s] * 9999 %}{{ l|sort|length }}"
                       "{{ l|unique|list }}{{ l|tojson|length }}"),
           std::string("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}"
                       "{% endfor %}"),
           std::string("{{ 10 ** 99 }}"),
           std::string("{{ 9223372036854775807 + 1 }}"),
           std::string("{{ -9223372036854775807 - 2 }}"),
           std::string("{{ (-9223372036854775807 - 1) // -1 }}"),
           std::string("{{ '%999999999999d'|format(1)|length }}{{ 1/0 }}"),
           std::string("{{ range(0, 999999999999999) }}"),
       }) {
    EXPECT_THAT(Rendered(source, "{}", limits), StartsWith("error: line ")) << source;
  }
}

TEST(JinjaLimits, DeepNestingIsRefusedWhenParsed) {
  for (const std::string& source : {
           "{{ " + Repeated("(", 5000) + "1" + Repeated(")", 5000) + " }}",
           "{{ " + Repeated("[", 5000) + Repeated("]", 5000) + " }}",
           "{{ " + Repeated("{1:", 5000) + "1" + Repeated("}", 5000) + " }}",
           "{{ " + Repeated("not ", 5000) + "1 }}",
           "{{ " + Repeated("-", 5000) + "1 }}",
           "{{ 1" + Repeated("+1", 5000) + " }}",
           "{{ 1" + Repeated(" and 1", 5000) + " }}",
           "{{ a" + Repeated(".b", 5000) + " }}",
           "{{ a" + Repeated("|upper", 5000) + " }}",
           "{{ a" + Repeated("[0", 5000) + Repeated("]", 5000) + " }}",
           "{{ a" + Repeated("(", 5000) + Repeated(")", 5000) + " }}",
           "{{ 1" + Repeated(" if 1 else 1", 5000) + " }}",
           "{{ 1" + Repeated(" if 1", 5000) + " }}",
           Repeated("{% if 1 %}", 5000) + Repeated("{% endif %}", 5000),
           Repeated("{% for a in b %}", 5000) + Repeated("{% endfor %}", 5000),
       }) {
    EXPECT_THAT(Rendered(source), HasSubstr("nested deeper")) << source.substr(0, 40);
  }
  EXPECT_EQ(Rendered(Repeated("{% if 1 %}", 90) + "x" + Repeated("{% endif %}", 90)), "x");
  EXPECT_THAT(Rendered(std::string(300 << 10, 'x')), HasSubstr("at most"));
}

TEST(JinjaLimits, LongTextsPass) {
  const std::string text(1 << 20, 'x');
  EXPECT_EQ(Rendered("{{ (c + 'a')|trim|replace('q', 'r')|length }}", R"({"c": ")" + text + "\"}"),
            "1048577");
}

TEST(JinjaLimits, AnyBytesAreATemplateOrAnError) {
  for (const char* source :
       {"{{ '\xff\xfe' }}\x80", "{{ \"a\xc3", "{%\xff%}", "{{ x.\xe2\x82 }}"}) {
    EXPECT_FALSE(Rendered(source).empty());
  }
  EXPECT_EQ(Rendered("{{ '\xffx'|upper|length }}"), "2");
}

TEST(JinjaTemplate, RendersTheSameEachTime) {
  const auto parsed =
      Template::Parse("{% set n = namespace(i=0) %}{% set n.i = n.i + 1 %}{{ n.i }}");
  ASSERT_TRUE(parsed.ok());
  for (int i = 0; i < 3; ++i) {
    Runtime runtime({}, absl::UnixEpoch());
    EXPECT_EQ(parsed->Render({}, runtime)->bytes(), "1");
  }
}

}  // namespace
}  // namespace efedllm::jinja
