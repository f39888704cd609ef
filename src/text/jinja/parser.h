// Jinja source -> syntax tree.
#ifndef EFEDLLM_TEXT_JINJA_PARSER_H_
#define EFEDLLM_TEXT_JINJA_PARSER_H_

#include <cstddef>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "text/jinja/ast.h"

namespace efedllm::jinja {

inline constexpr size_t kMaxSourceBytes = size_t{256} << 10;
inline constexpr int kMaxDepth = 100;  // of expressions and of blocks within one another

// InvalidArgument: "line N: " and the reason, for what is no Jinja, for tags that this subset
// doesn't have (named), and for sources that are too large or nested too deep.
absl::StatusOr<Block> Parse(absl::string_view source);

}  // namespace efedllm::jinja

#endif  // EFEDLLM_TEXT_JINJA_PARSER_H_
