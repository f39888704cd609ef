// The rules that pre-tokenizers are made of. Each is a regular expression of the family, or one of
// its alternatives' sets, and named by what it cuts out.
#ifndef EFEDLLM_TEXT_SPLIT_RULES_H_
#define EFEDLLM_TEXT_SPLIT_RULES_H_

#include "text/pre_tokenizer.h"

namespace efedllm {

// \p{N}
CharRange FindDigit(const Characters& text, size_t begin, size_t end);
// \p{N}+
CharRange FindNumber(const Characters& text, size_t begin, size_t end);
// \p{N}{1,3}
CharRange FindUpToThreeDigits(const Characters& text, size_t begin, size_t end);
// [0-9][0-9][0-9]
CharRange FindThreeAsciiDigits(const Characters& text, size_t begin, size_t end);
// [\r\n]
CharRange FindNewline(const Characters& text, size_t begin, size_t end);
// \s+$
CharRange FindTrailingSpaces(const Characters& text, size_t begin, size_t end);
// [\p{P}$+<=>^~|]+
CharRange FindPunctuation(const Characters& text, size_t begin, size_t end);
// [\p{P}$+<=>^~|`]+
CharRange FindPunctuationFalcon(const Characters& text, size_t begin, size_t end);
// \s?\p{L}+
CharRange FindSpacedLetters(const Characters& text, size_t begin, size_t end);
// \s?\p{P}+
CharRange FindSpacedPunctuation(const Characters& text, size_t begin, size_t end);
// \s?[A-Za-z...]+, letters that have a case
CharRange FindSpacedCasedLetters(const Characters& text, size_t begin, size_t end);
// \s?[!-/:-~...]+, ASCII but digits, and its full-width forms and some more
CharRange FindSpacedAsciiLike(const Characters& text, size_t begin, size_t end);
// U+0800 to U+9FA5, U+AC00 to U+D7FF, once or more
CharRange FindCjkAndHangul(const Characters& text, size_t begin, size_t end);
// U+4E00 to U+9FA5, U+3040 to U+30FF, once or more
CharRange FindCjkAndKana(const Characters& text, size_t begin, size_t end);

// The whole expressions:
// GPT-2: contractions, letters, numbers, symbols, each with the space before it; white space
CharRange FindGpt2Word(const Characters& text, size_t begin, size_t end);
// Llama 3, Qwen 2: letters with any one character before them, up to 3 digits or 1, newlines
CharRange FindLlama3Word(const Characters& text, size_t begin, size_t end);
CharRange FindQwen2Word(const Characters& text, size_t begin, size_t end);
// Tekken, GPT-4o: as these, but a capital begins a word; GPT-4o: contractions belong to the word
CharRange FindTekkenWord(const Characters& text, size_t begin, size_t end);
CharRange FindGpt4oWord(const Characters& text, size_t begin, size_t end);
// DeepSeek V3: marks belong to letters, one ASCII symbol may stand before ASCII letters
CharRange FindDeepSeek3Word(const Characters& text, size_t begin, size_t end);

}  // namespace efedllm

#endif  // EFEDLLM_TEXT_SPLIT_RULES_H_
