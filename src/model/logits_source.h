// Texts as a model is judged on them, and where the logits of their positions come from.
#ifndef EFEDLLM_MODEL_LOGITS_SOURCE_H_
#define EFEDLLM_MODEL_LOGITS_SOURCE_H_

#include <cstddef>
#include <cstdint>
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
  // The logits behind each of tokens, [tokens.size(), vocab()]. Called for all tokens of a window
  // that predict one (all but the last), in order, some at a time; first is the position of the
  // first of them, and 0 where a window begins.
  virtual absl::Status Read(uint32_t first, absl::Span<const int32_t> tokens, MatrixRef logits) = 0;
};

// Computes them.
class ModelLogits final : public LogitsSource {
 public:
  // model is borrowed.
  explicit ModelLogits(LocalModel& model) : model_(model) {}

  uint32_t vocab() const override { return model_.config().vocab; }
  absl::Status Read(uint32_t first, absl::Span<const int32_t> tokens, MatrixRef logits) override;

 private:
  LocalModel& model_;
};

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_LOGITS_SOURCE_H_
