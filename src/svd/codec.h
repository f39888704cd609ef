// A codec turns a boundary's activations into the bytes of a hop and back. Exact arithmetic: both
// ends, a replay and an audit get the same bits. What becomes of a row depends on the row, the
// setting and the basis alone, not on the rows beside it.
#ifndef EFEDLLM_SVD_CODEC_H_
#define EFEDLLM_SVD_CODEC_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "svd/boundary_basis.h"
#include "svd/encoded_rows.h"
#include "tensor/matrix.h"

namespace efedllm {

// The numbers stand in messages.
enum class CodecId : uint32_t {
  kF32 = 1,
  kF16 = 2,     // to nearest even
  kInt8 = 3,    // blocks of 32 with an f16 scale
  kScalar = 4,  // quantized with one step, entropy-coded
  kKlt = 5,     // the same in the boundary's basis
};
absl::string_view CodecName(CodecId codec);  // "f32", "f16", "int8", "scalar", "klt"
std::optional<CodecId> CodecFromName(absl::string_view name);

// Steps lie on a grid of 16 to an octave: StepSize(i) = 2^(-i/16), relative to a row's RMS.
inline constexpr uint32_t kStepsPerOctave = 16;
inline constexpr uint32_t kMaxStepIndex = 160;  // 2^-10
float StepSize(uint32_t index);
// The largest step that is not above `step`; the ends of the grid beyond them.
uint32_t StepIndexBelow(float step);

struct CodecSetting {
  CodecId id = CodecId::kF32;
  uint8_t step = 0;  // of kScalar and kKlt: index on the grid; 0 otherwise

  bool needs_basis() const { return id == CodecId::kScalar || id == CodecId::kKlt; }
  // In messages: id + 256 · step.
  uint32_t number() const { return static_cast<uint32_t>(id) | uint32_t{step} << 8; }
  friend bool operator==(const CodecSetting&, const CodecSetting&) = default;
};
// nullopt: a number that this build doesn't know.
std::optional<CodecSetting> CodecFromNumber(uint32_t number);
std::string CodecLabel(CodecSetting setting);  // "int8", "klt/0.088"

// Most bytes that a [rows, cols] block takes in any codec; overflow-free for sizes within
// StepLimits.
uint64_t MaxEncodedBytes(size_t rows, size_t cols);

// What Encode tells of the error. kExact decodes what it encoded, which makes it a third dearer;
// kBound does so only for rows whose bound is above their budget. The bytes are the same.
enum class ErrorMeasure { kBound, kExact };

// What an encoding lost.
struct EncodingReport {
  double squared_error = 0;  // sum over all values; kBound: at least that
  uint64_t plain_rows = 0;   // rows that were sent as int8, f16 or f32 since the setting's error
                             // bound would not hold for them
};

// The codecs of one boundary. Not thread-safe (it owns scratch memory): one for each direction.
class ActivationCodec {
 public:
  // basis: null where the boundary has none; then settings that need one are refused.
  explicit ActivationCodec(size_t d_model, std::shared_ptr<const BoundaryBasis> basis = nullptr);
  ~ActivationCodec();
  ActivationCodec(ActivationCodec&&) noexcept;
  ActivationCodec& operator=(ActivationCodec&&) noexcept;

  size_t d_model() const;
  const BoundaryBasis* basis() const;  // null: none

  // Appends the encoding of activations, [rows, d_model], to out. A row's RMS error is at most that
  // of its setting: rows for which it would not be (outliers) are sent in a finer codec.
  // activations are finite (a stage's output is checked by its executor); CHECK: a setting that
  // needs a basis has it. rows: if not null, each row's encoding by itself is added to them.
  EncodingReport Encode(CodecSetting setting, ConstMatrixRef activations, std::string& out,
                        EncodedRows* rows = nullptr, ErrorMeasure measure = ErrorMeasure::kBound);

  // bytes come from a peer. InvalidArgument: not an encoding of exactly [out.rows, out.cols]
  // values by this setting, or the setting needs a basis and there is none; DataLoss: they are not
  // all finite. out's contents, and what was added to rows, are undefined then. rows: as in
  // Encode, where they are the same.
  absl::Status Decode(CodecSetting setting, absl::Span<const uint8_t> bytes, MatrixRef out,
                      EncodedRows* rows = nullptr);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace efedllm

#endif  // EFEDLLM_SVD_CODEC_H_
