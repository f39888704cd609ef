// Texts as a model is judged on them, and where the logits of their positions come from.
#ifndef EFEDLLM_MODEL_LOGITS_SOURCE_H_
#define EFEDLLM_MODEL_LOGITS_SOURCE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/sha256.h"
#include "model/local_model.h"
#include "tensor/matrix.h"

namespace efedllm {

// A text in windows that each begin anew. In a window, every token but the first is predicted from
// those before it.
struct TextWindows {
  std::vector<std::vector<int32_t>> windows;  // of two tokens or more

  uint64_t predictions() const;
  // Of all tokens and where windows begin: two equal ones mean the same text and tokenizer.
  Sha256Digest digest() const;
};

// Cuts tokens, which have no special ones around them, into windows of at most `length` tokens,
// none of which overlap; each begins with bos, or, where that is -1, with a token that nothing
// predicts. InvalidArgument: nothing would be predicted.
absl::StatusOr<TextWindows> CutText(absl::Span<const int32_t> tokens, int32_t bos, uint32_t length);

// Not thread-safe.
class LogitsSource {
 public:
  virtual ~LogitsSource() = default;

  virtual uint32_t vocab() const = 0;
  // A window begins, which the source may look ahead in; borrowed until the next one does.
  virtual absl::Status Begin(absl::Span<const int32_t> window);
  // The logits behind each of tokens, [tokens.size(), vocab()]. Called for all tokens of a window
  // that predict one (all but the last), in order, some at a time; first is the position of the
  // first of them, and 0 where a window begins.
  virtual absl::Status Read(uint32_t first, absl::Span<const int32_t> tokens, MatrixRef logits) = 0;
};

// Computes them, in steps of as many tokens as the model takes in one, or of one token of each of
// several windows.
class ModelLogits final : public LogitsSource {
 public:
  // model is borrowed. Two sources of one model need different sequences.
  explicit ModelLogits(LocalModel& model, SequenceId sequence = SequenceId{1})
      : model_(model), sequence_(sequence) {}

  uint32_t vocab() const override { return model_.config().vocab; }
  absl::Status Begin(absl::Span<const int32_t> window) override;
  absl::Status Read(uint32_t first, absl::Span<const int32_t> tokens, MatrixRef logits) override;

 private:
  LocalModel& model_;
  const SequenceId sequence_;
  absl::Span<const int32_t> window_;
  Matrix hidden_;       // of the step that was run last
  uint32_t first_ = 0;  // its first position
};

// Computed once, for any number of passes over the same text: the rows before the model's head are
// kept.
class KeptLogits final : public LogitsSource {
 public:
  // model is borrowed. Takes 4 · d_model bytes a token.
  static absl::StatusOr<std::unique_ptr<KeptLogits>> Create(LocalModel& model,
                                                            const TextWindows& text,
                                                            SequenceId sequence);

  uint32_t vocab() const override { return model_.config().vocab; }
  absl::Status Begin(absl::Span<const int32_t> window) override;
  absl::Status Read(uint32_t first, absl::Span<const int32_t> tokens, MatrixRef logits) override;

 private:
  explicit KeptLogits(LocalModel& model) : model_(model) {}

  LocalModel& model_;
  std::vector<Matrix> hidden_;  // of each window
  size_t next_ = 0, window_ = 0;
};

// Computes them as a server decodes: step by step one token of each of `batch` windows.
class DecodedLogits final : public LogitsSource {
 public:
  // model and text, whose windows are read in their order, are borrowed; the sequences are
  // first_sequence and the batch - 1 behind it. batch: not 0, at most the model's max_sequences.
  DecodedLogits(LocalModel& model, const TextWindows& text, uint32_t batch,
                SequenceId first_sequence)
      : model_(model), text_(text), batch_(batch), first_sequence_(first_sequence) {}

  uint32_t vocab() const override { return model_.config().vocab; }
  absl::Status Begin(absl::Span<const int32_t> window) override;
  absl::Status Read(uint32_t first, absl::Span<const int32_t> tokens, MatrixRef logits) override;

 private:
  absl::Status Decode(size_t first_window);

  LocalModel& model_;
  const TextWindows& text_;
  const uint32_t batch_;
  const SequenceId first_sequence_;
  size_t next_window_ = 0;
  std::vector<Matrix> hidden_;  // of the windows that were decoded together
};

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_LOGITS_SOURCE_H_
