// What one rendering may use: memory, steps and depth, all bounded, since a template is a program
// that came with a file that somebody downloaded.
#ifndef EFEDLLM_TEXT_JINJA_RUNTIME_H_
#define EFEDLLM_TEXT_JINJA_RUNTIME_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "text/jinja/value.h"

namespace efedllm::jinja {

struct RenderLimits {
  size_t memory_bytes = size_t{64} << 20;  // of all values ever made; they live until the end
  size_t steps = 20'000'000;               // expressions and statements, and bytes walked / 64
  int depth = 400;                         // of nested evaluation, macros included
};

// One rendering, one thread. Owns every object that its values point to. What goes beyond the
// limits is noted in status(), which the interpreter looks at between steps; until then the
// operations give anything, quickly.
class Runtime {
 public:
  Runtime(const RenderLimits& limits, absl::Time now);
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;

  Value String(MarkedText text);
  Value String(std::string bytes) { return String(MarkedText(std::move(bytes))); }
  Value NewList(std::vector<Value> items, bool is_tuple = false);
  Dict* NewDict();
  // Any other object.
  template <typename T>
  T* New(T object) {
    Reserve(sizeof(T) + 16);
    objects_.emplace_back(std::in_place_type<T>, std::move(object));
    return &std::get<T>(objects_.back());
  }

  // Counts work; false (and status) when there has been too much.
  bool Charge(size_t steps);
  bool ChargeBytes(size_t bytes) { return Charge(bytes / 64 + 1); }
  // Counts memory, before it is taken where an operation may multiply its input.
  bool Reserve(size_t bytes);
  // Notes a reason to stop; the first stays.
  void Fail(absl::Status status);

  const absl::Status& status() const { return status_; }
  bool ok() const { return status_.ok(); }
  int max_depth() const { return limits_.depth; }
  absl::Time now() const { return now_; }

 private:
  using Object = std::variant<MarkedText, List, Dict, Namespace, Loop, Method>;

  const RenderLimits limits_;
  const absl::Time now_;
  size_t steps_ = 0;
  size_t memory_bytes_ = 0;
  absl::Status status_;
  std::deque<Object> objects_;
};

}  // namespace efedllm::jinja

#endif  // EFEDLLM_TEXT_JINJA_RUNTIME_H_
