#include "model/logits_source.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/check.h"

namespace efedllm {
namespace {

constexpr SequenceId kWindow{1};

}  // namespace

uint64_t TextWindows::predictions() const {
  uint64_t sum = 0;
  for (const std::vector<int32_t>& window : windows) sum += window.size() - 1;
  return sum;
}

Sha256Digest TextWindows::digest() const {
  std::vector<uint8_t> bytes;
  const auto append = [&bytes](uint32_t number) {
    for (int i = 0; i < 4; ++i) bytes.push_back(static_cast<uint8_t>(number >> (8 * i)));
  };
  for (const std::vector<int32_t>& window : windows) {
    append(static_cast<uint32_t>(window.size()));
    for (const int32_t token : window) append(static_cast<uint32_t>(token));
  }
  return Sha256(bytes);
}

absl::StatusOr<TextWindows> CutText(absl::Span<const int32_t> tokens, int32_t bos,
                                    uint32_t length) {
  if (length < 2) {
    return absl::InvalidArgumentError("a window needs two tokens or more to predict one");
  }
  TextWindows text;
  const size_t own = bos < 0 ? length : length - 1;
  for (size_t first = 0; first < tokens.size(); first += own) {
    const absl::Span<const int32_t> part = tokens.subspan(first, own);
    std::vector<int32_t> window;
    if (bos >= 0) window.push_back(bos);
    window.insert(window.end(), part.begin(), part.end());
    if (window.size() >= 2) text.windows.push_back(std::move(window));
  }
  if (text.windows.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the text has ", tokens.size(), " tokens: too short to predict any of them"));
  }
  return text;
}

absl::Status ModelLogits::Read(uint32_t first, absl::Span<const int32_t> tokens, MatrixRef logits) {
  CHECK(tokens.size() <= model_.options().max_tokens);
  Step step;
  // What the sequence has from `first` on is dropped: a window before this one.
  step.spans = {{kWindow, first, static_cast<uint32_t>(tokens.size())}};
  return model_.Forward(step, tokens, logits);
}

}  // namespace efedllm
