#include "text/split_rules.h"

#include <algorithm>
#include <iterator>

namespace efedllm {
namespace {

using Class = CharClass;

// The first word in [begin, end), where match(text, at, end) is the end of a word that begins at
// `at`, and `at` itself if none does.
template <typename Match>
CharRange FindFirst(const Match& match, const Characters& text, size_t begin, size_t end) {
  for (size_t at = begin; at < end; ++at) {
    const size_t word_end = match(text, at, end);
    if (word_end > at) return {at, word_end};
  }
  return {end, end};
}

// The end of the run from `at` on in which is(text, i) holds.
template <typename Is>
size_t SkipWhile(const Is& is, const Characters& text, size_t at, size_t end) {
  while (at < end && is(text, at)) ++at;
  return at;
}

template <Class... kClasses>
bool IsA(const Characters& text, size_t i) {
  const Class c = text.Class(i);
  return ((c == kClasses) || ...);
}

bool IsNewline(const Characters& text, size_t i) { return text[i] == '\r' || text[i] == '\n'; }
bool IsNewlineOrSlash(const Characters& text, size_t i) {
  return IsNewline(text, i) || text[i] == '/';
}
bool IsSymbol(const Characters& text, size_t i) {  // [^\s\p{L}\p{N}]
  return !IsA<Class::kSpace, Class::kLetter, Class::kNumber>(text, i);
}
bool IsIn(char32_t c, char32_t first, char32_t last) { return first <= c && c <= last; }
bool IsAsciiLetter(const Characters& text, size_t i) {
  return IsIn(text[i] | 0x20, 'a', 'z') && text[i] < 0x80;
}
bool IsAsciiSymbol(char32_t c) {
  return IsIn(c, '!', '/') || IsIn(c, ':', '@') || IsIn(c, '[', '`') || IsIn(c, '{', '~');
}

// Behind the space at `at`, if it is one and not the last character.
size_t BehindBlank(const Characters& text, size_t at, size_t end) {
  return at + (text[at] == ' ' && at + 1 < end ? 1 : 0);
}

// \s?x+
template <typename Is>
CharRange FindSpaced(const Is& is, const Characters& text, size_t begin, size_t end) {
  const auto match = [&is](const Characters& t, size_t at, size_t stop) {
    const size_t first = at + (IsA<Class::kSpace>(t, at) && at + 1 < stop ? 1 : 0);
    const size_t word_end = SkipWhile(is, t, first, stop);
    return word_end > first ? word_end : at;
  };
  return FindFirst(match, text, begin, end);
}

// x+
template <typename Is>
CharRange FindRun(const Is& is, const Characters& text, size_t begin, size_t end) {
  const auto match = [&is](const Characters& t, size_t at, size_t stop) {
    return SkipWhile(is, t, at, stop);
  };
  return FindFirst(match, text, begin, end);
}

// 's|'t|'re|'ve|'m|'ll|'d, also in capitals if any_case. Its end, or `at`.
size_t SkipContraction(const Characters& text, size_t at, size_t end, bool any_case) {
  if (at + 1 >= end || text[at] != '\'') return at;
  const auto letter = [&](size_t i) -> char32_t {
    return any_case && IsIn(text[i], 'A', 'Z') ? text[i] + ('a' - 'A') : text[i];
  };
  const char32_t first = letter(at + 1);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return at + 2;
  if (at + 2 >= end) return at;
  const char32_t second = letter(at + 2);
  const bool is_long = (first == 'r' && second == 'e') || (first == 'v' && second == 'e') ||
                       (first == 'l' && second == 'l');
  return is_long ? at + 3 : at;
}

// \s+(?!\S)|\s+: the last of several spaces is left to the word behind it.
size_t SkipSpaces(const Characters& text, size_t at, size_t end) {
  const size_t run_end = SkipWhile(IsA<Class::kSpace>, text, at, end);
  return run_end > at + 1 && run_end < end ? run_end - 1 : run_end;
}

// \s*[\r\n]+|\s+(?!\S)|\s+
size_t SkipSpacesToNewline(const Characters& text, size_t at, size_t end) {
  const size_t run_end = SkipWhile(IsA<Class::kSpace>, text, at, end);
  for (size_t i = run_end; i > at; --i) {
    if (IsNewline(text, i - 1)) return i;
  }
  return SkipSpaces(text, at, end);
}

// " ?[^\s\p{L}\p{N}]+", and what is_tail holds for behind it. Its end, or `at`.
template <typename IsTail>
size_t SkipSymbols(const IsTail& is_tail, const Characters& text, size_t at, size_t end) {
  const size_t first = BehindBlank(text, at, end);
  const size_t symbols_end = SkipWhile(IsSymbol, text, first, end);
  return symbols_end > first ? SkipWhile(is_tail, text, symbols_end, end) : at;
}

// \p{N}{1,kMost}
template <size_t kMost>
size_t MatchDigits(const Characters& text, size_t at, size_t end) {
  return SkipWhile(IsA<Class::kNumber>, text, at, std::min(end, at + kMost));
}

// Behind the character at `at`, if it fits [^\r\n\p{L}\p{N}] and isn't the last.
size_t BehindLead(const Characters& text, size_t at, size_t end) {
  const bool is_lead =
      !IsNewline(text, at) && !IsA<Class::kLetter, Class::kNumber>(text, at) && at + 1 < end;
  return at + (is_lead ? 1 : 0);
}

size_t MatchGpt2(const Characters& text, size_t at, size_t end) {
  const size_t contraction_end = SkipContraction(text, at, end, /*any_case=*/false);
  if (contraction_end > at) return contraction_end;
  const size_t first = BehindBlank(text, at, end);
  switch (text.Class(first)) {
    case Class::kLetter:
      return SkipWhile(IsA<Class::kLetter>, text, first, end);
    case Class::kNumber:
      return SkipWhile(IsA<Class::kNumber>, text, first, end);
    case Class::kSpace:
      return SkipSpaces(text, at, end);
    default:
      return SkipWhile(IsSymbol, text, first, end);
  }
}

template <size_t kMostDigits>
size_t MatchLlama3(const Characters& text, size_t at, size_t end) {
  const size_t contraction_end = SkipContraction(text, at, end, /*any_case=*/true);
  if (contraction_end > at) return contraction_end;
  const size_t letters = BehindLead(text, at, end);
  const size_t letters_end = SkipWhile(IsA<Class::kLetter>, text, letters, end);
  if (letters_end > letters) return letters_end;
  const size_t digits_end = MatchDigits<kMostDigits>(text, at, end);
  if (digits_end > at) return digits_end;
  const size_t symbols_end = SkipSymbols(IsNewline, text, at, end);
  if (symbols_end > at) return symbols_end;
  return SkipSpacesToNewline(text, at, end);
}

// The families say "capitals, then small letters". To llama.cpp only A to Z and a to z have a case,
// and all other letters fit both. Of the expression's two alternatives,
// [not a-z]*[not A-Z]+|[not a-z]+[not A-Z]* over letters, the first gives back characters until the
// last that it keeps fits [not A-Z].
size_t SkipCasedWord(const Characters& text, size_t at, size_t end) {
  const auto is_capital = [](const Characters& t, size_t i) {
    return IsA<Class::kLetter>(t, i) && !IsIn(t[i], 'a', 'z');
  };
  const auto is_small = [](const Characters& t, size_t i) {
    return IsA<Class::kLetter>(t, i) && !IsIn(t[i], 'A', 'Z');
  };
  const size_t capitals_end = SkipWhile(is_capital, text, at, end);
  const size_t small_end = SkipWhile(is_small, text, capitals_end, end);
  if (small_end > capitals_end) return small_end;
  for (size_t i = capitals_end; i > at; --i) {
    if (is_small(text, i - 1)) return i;
  }
  return capitals_end;
}

template <size_t kMostDigits, bool kContractions>
size_t MatchTekken(const Characters& text, size_t at, size_t end) {
  const size_t word = BehindLead(text, at, end);
  const size_t word_end = SkipCasedWord(text, word, end);
  if (word_end > word) {
    return kContractions ? SkipContraction(text, word_end, end, /*any_case=*/true) : word_end;
  }
  const size_t digits_end = MatchDigits<kMostDigits>(text, at, end);
  if (digits_end > at) return digits_end;
  const size_t symbols_end = SkipSymbols(IsNewlineOrSlash, text, at, end);
  if (symbols_end > at) return symbols_end;
  return SkipSpacesToNewline(text, at, end);
}

// [!-/:-@[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|...
size_t MatchDeepSeek3(const Characters& text, size_t at, size_t end) {
  const auto is_sign = IsA<Class::kPunctuation, Class::kSymbol>;
  const auto is_letter = IsA<Class::kLetter, Class::kMark>;
  if (IsAsciiSymbol(text[at])) {
    const size_t ascii_end = SkipWhile(IsAsciiLetter, text, at + 1, end);
    if (ascii_end > at + 1) return ascii_end;
  }
  if (!IsNewline(text, at) && !is_sign(text, at)) {
    const size_t letters_end = SkipWhile(is_letter, text, at + 1, end);
    if (letters_end > at + 1 || is_letter(text, at)) return letters_end;
  }
  const size_t signs = BehindBlank(text, at, end);
  const size_t signs_end = SkipWhile(is_sign, text, signs, end);
  if (signs_end > signs) return SkipWhile(IsNewline, text, signs_end, end);
  return SkipSpacesToNewline(text, at, end);
}

struct CodePoints {
  char32_t first;
  char32_t last;
};

// The letters with a case that DeepSeek LLM's expression lists.
constexpr CodePoints kCasedLetters[] = {
    {0x0041, 0x005a},   {0x0061, 0x007a},   {0x00b5, 0x00b5},   {0x00c0, 0x00d6},
    {0x00d8, 0x00f6},   {0x00f8, 0x01ba},   {0x01bc, 0x01bf},   {0x01c4, 0x0293},
    {0x0295, 0x02af},   {0x0370, 0x0373},   {0x0376, 0x0377},   {0x037b, 0x037d},
    {0x037f, 0x037f},   {0x0386, 0x0386},   {0x0388, 0x038a},   {0x038c, 0x038c},
    {0x038e, 0x03a1},   {0x03a3, 0x03f5},   {0x03f7, 0x0481},   {0x048a, 0x052f},
    {0x0531, 0x0556},   {0x10a0, 0x10c5},   {0x13a0, 0x13f5},   {0x13f8, 0x13fd},
    {0x1c90, 0x1cba},   {0x1cbd, 0x1cbf},   {0x1d00, 0x1d2b},   {0x1d6b, 0x1d77},
    {0x1d79, 0x1d9a},   {0x1e00, 0x1f15},   {0x1f18, 0x1f1d},   {0x1f20, 0x1f45},
    {0x1f48, 0x1f4d},   {0x1f50, 0x1f57},   {0x1f59, 0x1f59},   {0x1f5b, 0x1f5b},
    {0x1f5d, 0x1f5d},   {0x1f5f, 0x1f7d},   {0x1f80, 0x1fb4},   {0x1fb6, 0x1fbc},
    {0x1fbe, 0x1fbe},   {0x1fc2, 0x1fc4},   {0x1fc6, 0x1fcc},   {0x1fd0, 0x1fd3},
    {0x1fd6, 0x1fdb},   {0x1fe0, 0x1fec},   {0x1ff2, 0x1ff4},   {0x1ff6, 0x1ffc},
    {0x2102, 0x2102},   {0x2107, 0x2107},   {0x210a, 0x2113},   {0x2115, 0x2115},
    {0x2119, 0x211d},   {0x2124, 0x2124},   {0x2126, 0x2126},   {0x2128, 0x2128},
    {0x212a, 0x212d},   {0x212f, 0x2134},   {0x2139, 0x2139},   {0x213c, 0x213f},
    {0x2145, 0x2149},   {0x214e, 0x214e},   {0x2183, 0x2184},   {0x2c00, 0x2c7b},
    {0x2c7e, 0x2ce4},   {0x2ceb, 0x2cee},   {0x2cf2, 0x2cf3},   {0xa640, 0xa66d},
    {0xa680, 0xa69b},   {0xa722, 0xa76f},   {0xa771, 0xa787},   {0xa78b, 0xa78e},
    {0xab70, 0xabbf},   {0xfb00, 0xfb06},   {0xfb13, 0xfb17},   {0xff21, 0xff3a},
    {0xff41, 0xff5a},   {0x10400, 0x1044f}, {0x104b0, 0x104d3}, {0x104d8, 0x104fb},
    {0x10c80, 0x10cb2}, {0x10cc0, 0x10cf2}, {0x118a0, 0x118df}, {0x1e900, 0x1e943}};

bool IsCasedLetter(const Characters& text, size_t i) {
  const char32_t c = text[i];
  const auto range =
      std::partition_point(std::begin(kCasedLetters), std::end(kCasedLetters),
                           [c](const CodePoints& points) { return points.last < c; });
  return range != std::end(kCasedLetters) && range->first <= c;
}

bool IsAsciiLike(const Characters& text, size_t i) {
  const char32_t c = text[i];
  return IsIn(c, '!', '/') || IsIn(c, ':', '~') || IsIn(c, 0xff01, 0xff0f) ||
         IsIn(c, 0xff1a, 0xff5e) || IsIn(c, 0x2018, 0x201f) || IsIn(c, 0x3001, 0x3002);
}

template <bool kBackquote>
bool IsFalconPunctuation(const Characters& text, size_t i) {
  constexpr absl::string_view kMore = "$+<=>^~|";
  const char32_t c = text[i];
  return IsA<Class::kPunctuation>(text, i) || (kBackquote && c == '`') ||
         (c < 0x80 && kMore.find(static_cast<char>(c)) != kMore.npos);
}

}  // namespace

CharRange FindDigit(const Characters& text, size_t begin, size_t end) {
  return FindFirst(MatchDigits<1>, text, begin, end);
}

CharRange FindNumber(const Characters& text, size_t begin, size_t end) {
  return FindRun(IsA<Class::kNumber>, text, begin, end);
}

CharRange FindUpToThreeDigits(const Characters& text, size_t begin, size_t end) {
  return FindFirst(MatchDigits<3>, text, begin, end);
}

CharRange FindThreeAsciiDigits(const Characters& text, size_t begin, size_t end) {
  const auto match = [](const Characters& t, size_t at, size_t stop) {
    const auto is_digit = [](const Characters& u, size_t i) { return IsIn(u[i], '0', '9'); };
    return SkipWhile(is_digit, t, at, std::min(stop, at + 3)) == at + 3 ? at + 3 : at;
  };
  return FindFirst(match, text, begin, end);
}

CharRange FindNewline(const Characters& text, size_t begin, size_t end) {
  const auto match = [](const Characters& t, size_t at, size_t) {
    return at + (IsNewline(t, at) ? 1 : 0);
  };
  return FindFirst(match, text, begin, end);
}

CharRange FindTrailingSpaces(const Characters& text, size_t begin, size_t end) {
  size_t at = end;
  while (at > begin && IsA<Class::kSpace>(text, at - 1)) --at;
  return {at, end};
}

CharRange FindPunctuation(const Characters& text, size_t begin, size_t end) {
  return FindRun(IsFalconPunctuation<false>, text, begin, end);
}

CharRange FindPunctuationFalcon(const Characters& text, size_t begin, size_t end) {
  return FindRun(IsFalconPunctuation<true>, text, begin, end);
}

CharRange FindSpacedLetters(const Characters& text, size_t begin, size_t end) {
  return FindSpaced(IsA<Class::kLetter>, text, begin, end);
}

CharRange FindSpacedPunctuation(const Characters& text, size_t begin, size_t end) {
  return FindSpaced(IsA<Class::kPunctuation>, text, begin, end);
}

CharRange FindSpacedCasedLetters(const Characters& text, size_t begin, size_t end) {
  return FindSpaced(IsCasedLetter, text, begin, end);
}

CharRange FindSpacedAsciiLike(const Characters& text, size_t begin, size_t end) {
  return FindSpaced(IsAsciiLike, text, begin, end);
}

CharRange FindCjkAndHangul(const Characters& text, size_t begin, size_t end) {
  const auto is = [](const Characters& t, size_t i) {
    return !IsA<Class::kSpace>(t, i) && (IsIn(t[i], 0x0800, 0x9fa5) || IsIn(t[i], 0xac00, 0xd7ff));
  };
  return FindRun(is, text, begin, end);
}

CharRange FindCjkAndKana(const Characters& text, size_t begin, size_t end) {
  const auto is = [](const Characters& t, size_t i) {
    return IsIn(t[i], 0x4e00, 0x9fa5) || IsIn(t[i], 0x3040, 0x30ff);
  };
  return FindRun(is, text, begin, end);
}

CharRange FindGpt2Word(const Characters& text, size_t begin, size_t end) {
  return FindFirst(MatchGpt2, text, begin, end);
}

CharRange FindLlama3Word(const Characters& text, size_t begin, size_t end) {
  return FindFirst(MatchLlama3<3>, text, begin, end);
}

CharRange FindQwen2Word(const Characters& text, size_t begin, size_t end) {
  return FindFirst(MatchLlama3<1>, text, begin, end);
}

CharRange FindTekkenWord(const Characters& text, size_t begin, size_t end) {
  return FindFirst(MatchTekken<1, false>, text, begin, end);
}

CharRange FindGpt4oWord(const Characters& text, size_t begin, size_t end) {
  return FindFirst(MatchTekken<3, true>, text, begin, end);
}

CharRange FindDeepSeek3Word(const Characters& text, size_t begin, size_t end) {
  return FindFirst(MatchDeepSeek3, text, begin, end);
}

}  // namespace efedllm
