#include "model/logits_source.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status_macros.h"

namespace efedllm {
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

absl::Status LogitsSource::Begin(absl::Span<const int32_t>) { return absl::OkStatus(); }

absl::Status ModelLogits::Begin(absl::Span<const int32_t> window) {
  window_ = window;
  hidden_ = Matrix();
  first_ = 0;
  return absl::OkStatus();
}

absl::Status ModelLogits::Read(uint32_t first, absl::Span<const int32_t> tokens, MatrixRef logits) {
  size_t done = 0;
  while (done < tokens.size()) {
    const auto at = first + static_cast<uint32_t>(done);
    if (at == first_ + hidden_.rows()) {
      // Without the last token, behind which nothing is predicted. What the sequence has from the
      // step's position on, of a window before this one, is dropped.
      const auto part = window_.subspan(at, model_.options().max_tokens);
      const size_t rows = std::min(part.size(), window_.size() - 1 - at);
      CHECK(rows > 0);
      Step step;
      step.spans = {{sequence_, at, static_cast<uint32_t>(rows)}};
      hidden_ = Matrix(rows, model_.config().d_model);
      first_ = at;
      RETURN_IF_ERROR(model_.RunStages(step, part.first(rows), hidden_.ref()));
    }
    CHECK(at >= first_);
    const size_t row = at - first_;
    const size_t rows = std::min(hidden_.rows() - row, tokens.size() - done);
    model_.Logits({hidden_.row(row), rows, hidden_.cols()}, {logits.row(done), rows, logits.cols});
    done += rows;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<KeptLogits>> KeptLogits::Create(LocalModel& model,
                                                               const TextWindows& text,
                                                               SequenceId sequence) {
  std::unique_ptr<KeptLogits> kept(new KeptLogits(model));
  kept->hidden_.reserve(text.windows.size());
  for (const std::vector<int32_t>& window : text.windows) {
    Matrix hidden(window.size() - 1, model.config().d_model);
    const size_t most = model.options().max_tokens;
    for (size_t first = 0; first < hidden.rows(); first += most) {
      const size_t rows = std::min(most, hidden.rows() - first);
      Step step;
      step.spans = {{sequence, static_cast<uint32_t>(first), static_cast<uint32_t>(rows)}};
      RETURN_IF_ERROR(model.RunStages(step, absl::MakeConstSpan(window).subspan(first, rows),
                                      {hidden.row(first), rows, hidden.cols()}));
    }
    kept->hidden_.push_back(std::move(hidden));
  }
  return kept;
}

absl::Status KeptLogits::Begin(absl::Span<const int32_t>) {
  window_ = next_++ % hidden_.size();
  return absl::OkStatus();
}

absl::Status KeptLogits::Read(uint32_t first, absl::Span<const int32_t> tokens, MatrixRef logits) {
  const Matrix& hidden = hidden_[window_];
  CHECK(first + tokens.size() <= hidden.rows());
  model_.Logits({hidden.ref().row(first), tokens.size(), hidden.cols()}, logits);
  return absl::OkStatus();
}

absl::Status DecodedLogits::Begin(absl::Span<const int32_t>) {
  const size_t window = next_window_++;
  return window % batch_ == 0 ? Decode(window) : absl::OkStatus();
}

absl::Status DecodedLogits::Decode(size_t first_window) {
  const absl::Span<const std::vector<int32_t>> windows =
      absl::MakeConstSpan(text_.windows).subspan(first_window, batch_);
  hidden_.clear();
  size_t longest = 0;
  for (const std::vector<int32_t>& window : windows) {
    hidden_.emplace_back(window.size() - 1, model_.config().d_model);
    longest = std::max(longest, window.size() - 1);
  }
  Matrix rows(windows.size(), model_.config().d_model);
  for (size_t position = 0; position < longest; ++position) {
    Step step;
    std::vector<int32_t> tokens;
    for (size_t i = 0; i < windows.size(); ++i) {
      if (position + 1 >= windows[i].size()) continue;
      step.spans.push_back({SequenceId{first_sequence_.v + i}, static_cast<uint32_t>(position), 1});
      tokens.push_back(windows[i][position]);
    }
    RETURN_IF_ERROR(model_.RunStages(step, tokens, {rows.row(0), tokens.size(), rows.cols()}));
    size_t row = 0;
    for (size_t i = 0; i < windows.size(); ++i) {
      if (position + 1 >= windows[i].size()) continue;
      std::copy_n(rows.row(row++), rows.cols(), hidden_[i].row(position));
    }
  }
  return absl::OkStatus();
}

absl::Status DecodedLogits::Read(uint32_t first, absl::Span<const int32_t> tokens,
                                 MatrixRef logits) {
  const Matrix& hidden = hidden_[(next_window_ - 1) % batch_];
  CHECK(first + tokens.size() <= hidden.rows());
  model_.Logits({hidden.ref().row(first), tokens.size(), hidden.cols()}, logits);
  return absl::OkStatus();
}

}  // namespace efedllm
