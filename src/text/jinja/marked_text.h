// A string that knows which of its bytes a client wrote, through all that a template does to it.
#ifndef EFEDLLM_TEXT_JINJA_MARKED_TEXT_H_
#define EFEDLLM_TEXT_JINJA_MARKED_TEXT_H_

#include <cstddef>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace efedllm::jinja {

enum class Origin : bool { kTemplate, kClient };

class MarkedText {
 public:
  MarkedText() = default;
  explicit MarkedText(std::string bytes, Origin origin = Origin::kTemplate)
      : bytes_(std::move(bytes)), first_(origin) {}

  const std::string& bytes() const { return bytes_; }
  size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  size_t memory_bytes() const { return bytes_.size() + turns_.size() * sizeof(size_t); }

  void Append(absl::string_view bytes, Origin origin);
  void Append(const MarkedText& text);
  // Appends the bytes [begin, end) of text.
  void AppendPart(const MarkedText& text, size_t begin, size_t end);
  MarkedText Substr(size_t begin, size_t end) const;
  // What `part`, a view into bytes(), is with its marks.
  MarkedText Part(absl::string_view part) const;

  // visit(absl::string_view bytes, Origin) for each run of one origin, in order; none is empty.
  template <typename Visit>
  void ForEachRun(size_t begin, size_t end, const Visit& visit) const {
    Origin origin = first_;
    size_t at = 0;
    const auto run = [&](size_t stop) {
      const size_t from = at < begin ? begin : at;
      const size_t to = stop < end ? stop : end;
      if (from < to) visit(absl::string_view(bytes_).substr(from, to - from), origin);
      at = stop;
    };
    for (const size_t turn : turns_) {
      run(turn);
      origin = origin == Origin::kClient ? Origin::kTemplate : Origin::kClient;
    }
    run(bytes_.size());
  }
  template <typename Visit>
  void ForEachRun(const Visit& visit) const {
    ForEachRun(0, size(), visit);
  }

 private:
  std::string bytes_;
  Origin first_ = Origin::kTemplate;  // of the first byte
  std::vector<size_t> turns_;         // ascending: where the origin changes; never 0 nor size()
};

}  // namespace efedllm::jinja

#endif  // EFEDLLM_TEXT_JINJA_MARKED_TEXT_H_
