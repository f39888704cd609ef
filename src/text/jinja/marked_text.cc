#include "text/jinja/marked_text.h"

namespace efedllm::jinja {

void MarkedText::Append(absl::string_view bytes, Origin origin) {
  if (bytes.empty()) return;
  if (bytes_.empty()) {
    first_ = origin;
  } else {
    const bool is_turned = turns_.size() % 2 == 1;
    const bool ends_as_client = (first_ == Origin::kClient) != is_turned;
    if (ends_as_client != (origin == Origin::kClient)) turns_.push_back(bytes_.size());
  }
  bytes_.append(bytes.data(), bytes.size());
}

void MarkedText::Append(const MarkedText& text) { AppendPart(text, 0, text.size()); }

void MarkedText::AppendPart(const MarkedText& text, size_t begin, size_t end) {
  text.ForEachRun(begin, end,
                  [this](absl::string_view run, Origin origin) { Append(run, origin); });
}

MarkedText MarkedText::Substr(size_t begin, size_t end) const {
  MarkedText part;
  part.AppendPart(*this, begin, end);
  return part;
}

MarkedText MarkedText::Part(absl::string_view part) const {
  const size_t begin = static_cast<size_t>(part.data() - bytes_.data());
  return Substr(begin, begin + part.size());
}

}  // namespace efedllm::jinja
