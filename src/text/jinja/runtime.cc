#include "text/jinja/runtime.h"

#include "absl/strings/str_cat.h"
#include "common/units.h"

namespace efedllm::jinja {

Runtime::Runtime(const RenderLimits& limits, absl::Time now) : limits_(limits), now_(now) {}

Value Runtime::String(MarkedText text) {
  Reserve(text.memory_bytes());
  return static_cast<const MarkedText*>(New(std::move(text)));
}

Value Runtime::NewList(std::vector<Value> items, bool is_tuple) {
  Reserve(items.size() * sizeof(Value));
  return New(List{std::move(items), is_tuple});
}

Dict* Runtime::NewDict() { return New(Dict{}); }

bool Runtime::Charge(size_t steps) {
  steps_ += steps;
  if (steps_ > limits_.steps) {
    Fail(absl::ResourceExhaustedError(
        absl::StrCat("the template took more than ", limits_.steps, " steps")));
  }
  return ok();
}

bool Runtime::Reserve(size_t bytes) {
  memory_bytes_ = bytes > limits_.memory_bytes ? bytes : memory_bytes_ + bytes;
  if (memory_bytes_ > limits_.memory_bytes) {
    Fail(absl::ResourceExhaustedError(
        absl::StrCat("the template's values took more than ", FormatBytes(limits_.memory_bytes))));
  }
  return ok();
}

void Runtime::Fail(absl::Status status) {
  if (status_.ok()) status_ = std::move(status);
}

}  // namespace efedllm::jinja
