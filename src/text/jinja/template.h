// A chat template as Hugging Face publishes them: the subset of Jinja that real ones use, run in a
// sandbox. It is somebody else's program, so every rendering is bounded in time, memory and depth,
// and sees nothing but its variables.
#ifndef EFEDLLM_TEXT_JINJA_TEMPLATE_H_
#define EFEDLLM_TEXT_JINJA_TEMPLATE_H_

#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "text/jinja/ast.h"
#include "text/jinja/marked_text.h"
#include "text/jinja/runtime.h"
#include "text/jinja/value.h"

namespace efedllm::jinja {

using Variables = std::vector<std::pair<absl::string_view, Value>>;

// Immutable; thread-safe.
class Template {
 public:
  // InvalidArgument: "line N: ..." for what is no Jinja or beyond the subset.
  static absl::StatusOr<Template> Parse(absl::string_view source);

  // The text that the template prints, and which of it came with the variables. The values live in
  // runtime. InvalidArgument: "line N: ...", an error in the template, or that it raised itself.
  // ResourceExhausted: it went beyond runtime's limits.
  absl::StatusOr<MarkedText> Render(const Variables& variables, Runtime& runtime) const;

 private:
  explicit Template(Block block) : block_(std::make_shared<const Block>(std::move(block))) {}

  std::shared_ptr<const Block> block_;
};

}  // namespace efedllm::jinja

#endif  // EFEDLLM_TEXT_JINJA_TEMPLATE_H_
