// The tables that CallFilter looks into.
#ifndef EFEDLLM_TEXT_JINJA_FILTERS_H_
#define EFEDLLM_TEXT_JINJA_FILTERS_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "text/jinja/runtime.h"
#include "text/jinja/value.h"

namespace efedllm::jinja {

struct Filter {
  absl::string_view name;
  absl::StatusOr<Value> (*call)(const Value& self, const Arguments& arguments, Runtime& runtime);
};

absl::Span<const Filter> TextFilters();      // of strings and numbers
absl::Span<const Filter> SequenceFilters();  // of lists and dicts

}  // namespace efedllm::jinja

#endif  // EFEDLLM_TEXT_JINJA_FILTERS_H_
