// A model in this process whose stages hand their activations over as a cluster's would: coded,
// framed, and decoded again. What that costs in bytes and in the predictions can be measured.
#ifndef EFEDLLM_APP_CODED_MODEL_H_
#define EFEDLLM_APP_CODED_MODEL_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "cluster/step.h"
#include "model/local_model.h"
#include "model/logits_source.h"
#include "svd/boundary_basis.h"
#include "svd/codec.h"
#include "tensor/matrix.h"

namespace efedllm {

using BoundaryBases = std::vector<std::shared_ptr<const BoundaryBasis>>;

// How a boundary is coded: by a codec, or, to compare with what others send, in blocks of 32 signed
// integers with an f16 scale.
struct BoundaryCoding {
  CodecSetting setting;
  uint32_t block_bits = 0;  // 2 to 8: of an integer; 0: by the setting

  std::string Label() const;  // "klt/0.088", "int5 blocks"
};

// What went over a boundary.
struct BoundaryTraffic {
  uint64_t rows = 0;
  uint64_t frames = 0;
  uint64_t payload_bytes = 0;  // as the codec wrote them
  uint64_t frame_bytes = 0;    // with the step's header, the stages' timings and the checksum
  uint64_t plain_rows = 0;     // that fell back to a finer codec
  double squared_error = 0;
  double energy = 0;  // sum of the squares of what was coded

  double payload_per_row() const;
  double bytes_per_row() const;
  double plain_share() const;
};

// Not thread-safe; one for a model at a time.
class CodedModel {
 public:
  // model is borrowed, and has two stages or more. bases: of any boundaries. Nothing is coded yet.
  CodedModel(LocalModel& model, const BoundaryBases& bases);
  ~CodedModel();  // the model is as it was
  CodedModel(const CodedModel&) = delete;
  CodedModel& operator=(const CodedModel&) = delete;

  // Layers before each boundary, ascending.
  const std::vector<uint32_t>& boundaries() const { return boundaries_; }
  // Of the i-th boundary; null: none was given.
  const BoundaryBasis* basis(size_t i) const { return codecs_[i].basis(); }

  // codings[i]: of the i-th boundary; nullopt: it hands over f32 as computed, and counts nothing.
  // Traffic counts from zero. FailedPrecondition: a boundary lacks the basis for its coding.
  absl::Status Use(std::vector<std::optional<BoundaryCoding>> codings);
  // While it is paused, nothing is coded.
  void Pause(bool paused) { paused_ = paused; }

  const std::vector<BoundaryTraffic>& traffic() const { return traffic_; }

 private:
  absl::Status Hand(const Step& step, size_t boundary, MatrixRef hidden);

  LocalModel& model_;
  std::vector<uint32_t> boundaries_;
  std::vector<ActivationCodec> codecs_;
  std::vector<std::optional<BoundaryCoding>> codings_;
  std::vector<BoundaryTraffic> traffic_;
  bool paused_ = false;
};

// Another source's logits, computed by the coded model; any other use of the model is uncoded.
class CodedLogits final : public LogitsSource {
 public:
  // Both borrowed; source is one of the coded model's, which is paused but in here.
  CodedLogits(LogitsSource& source, CodedModel& coded) : source_(source), coded_(coded) {
    coded_.Pause(true);
  }

  uint32_t vocab() const override { return source_.vocab(); }
  absl::Status Begin(absl::Span<const int32_t> window) override;
  absl::Status Read(uint32_t first, absl::Span<const int32_t> tokens, MatrixRef logits) override;

 private:
  LogitsSource& source_;
  CodedModel& coded_;
};

// Rounds rows to blocks of 32 integers of so many bits, 2 to 8, with an f16 scale each, in place.
// The bytes that they take.
uint64_t RoundToIntegerBlocks(uint32_t bits, MatrixRef rows);

}  // namespace efedllm

#endif  // EFEDLLM_APP_CODED_MODEL_H_
