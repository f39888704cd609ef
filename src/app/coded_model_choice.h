// Which codec each boundary of a local model gets, by name, and the bases that it needs.
#ifndef EFEDLLM_APP_CODED_MODEL_CHOICE_H_
#define EFEDLLM_APP_CODED_MODEL_CHOICE_H_

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "app/coded_model.h"
#include "app/local_run.h"
#include "model/model_file.h"
#include "svd/codec_policy.h"

namespace efedllm {

// A level, whose budget is shared out to all boundaries, or one coding for each of them.
class CodecChoice {
 public:
  // A level (lossless, transparent, balanced, small; auto is transparent, for no link is measured
  // here); f32, f16, int8; scalar:STEP or klt:STEP with a step relative to a row's RMS; or, to
  // compare with, int2 to int7. InvalidArgument: none of these.
  static absl::StatusOr<CodecChoice> Parse(absl::string_view name);

  bool needs_bases() const;
  // Of a boundary that is one of so many. basis is not null if needs_bases().
  BoundaryCoding For(const BoundaryBasis* basis, size_t d_model, size_t boundaries) const;
  // Of all boundaries of a model.
  std::vector<std::optional<BoundaryCoding>> ForAll(const CodedModel& model, size_t d_model) const;

 private:
  explicit CodecChoice(std::variant<CodecLevel, BoundaryCoding> choice) : choice_(choice) {}

  std::variant<CodecLevel, BoundaryCoding> choice_;
};

// For help texts.
inline constexpr const char* kCodecNames =
    "lossless, transparent, balanced, small, auto (here as transparent),\n"
    "f32, f16, int8, scalar:STEP, klt:STEP, or int2 to int7 to compare with";

// The bases of these boundaries, out of the store in a state folder (empty: the coordinator's), or
// calibrated now, with a progress bar on stderr, and kept there.
absl::StatusOr<BoundaryBases> FindBases(const ModelFile& file, std::vector<uint32_t> boundaries,
                                        const LocalFlags& flags, std::string state_dir);

}  // namespace efedllm

#endif  // EFEDLLM_APP_CODED_MODEL_CHOICE_H_
