// Which codec an edge uses: pure rules over budgets of quality and measured times.
#ifndef EFEDLLM_SVD_CODEC_POLICY_H_
#define EFEDLLM_SVD_CODEC_POLICY_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "svd/boundary_basis.h"
#include "svd/codec.h"

namespace efedllm {

// How much the transfers may change what the model says: mean KL of the next token's distribution
// from the uncoded model's, in nats, all hops together.
enum class CodecLevel {
  kLossless,     // 0
  kTransparent,  // 1e-3
  kBalanced,     // 1e-2
  kSmall,        // 3e-2
  kAuto,         // for each edge the least of these that is worth its time
};
std::optional<CodecLevel> CodecLevelFromName(absl::string_view name);
absl::string_view CodecLevelName(CodecLevel level);
double KlBudget(CodecLevel level);  // not of kAuto

// What the operator asks for: a level, or, for benchmarks, one codec for every edge.
struct CodecRequest {
  // A level, or the name of a codec without a basis. nullopt: neither.
  static std::optional<CodecRequest> FromName(absl::string_view name);

  CodecLevel level = CodecLevel::kLossless;
  std::optional<CodecId> fixed;  // kF32, kF16 or kInt8; the level does not count then

  std::string name() const;  // "balanced", "int8"
  // Whether bases can be of use at all.
  bool may_use_bases() const { return !fixed && level != CodecLevel::kLossless; }
};

// The coarsest setting of kScalar or kKlt with which one of so many hops keeps to its share of the
// level's budget, by what the basis measured. The hops' harm adds up, so each gets the same share.
// A quarter of it is left for texts that are not like the calibration's.
CodecSetting SettingFor(CodecLevel level, CodecId codec, const BoundaryBasis& basis, size_t hops);

// Mean bytes of a coded row.
double ExpectedRowBytes(CodecSetting setting, size_t d_model, const BoundaryBasis* basis);

// Seconds to encode a row and to decode it again.
struct CodecCosts {
  double f32 = 0, f16 = 0, int8 = 0, scalar = 0, klt = 0;

  double of(CodecId codec) const;
};

// What an edge carries: blocks of prompts, or steps of decoding. Costs and computing differ.
enum class EdgeLoad : uint8_t { kPrompts, kDecoding };
inline constexpr std::array<EdgeLoad, 2> kEdgeLoads = {EdgeLoad::kPrompts, EdgeLoad::kDecoding};
// Rows of a step: a block of a prompt, or some streams.
constexpr uint32_t TypicalRows(EdgeLoad load) { return load == EdgeLoad::kPrompts ? 512 : 8; }

// Measures them on this thread, some hundredths of a second; those of decoding behind other memory,
// as a stage's weights come between two steps. basis: null leaves scalar and klt unknown (0).
CodecCosts MeasureCodecCosts(size_t d_model, const BoundaryBasis* basis, EdgeLoad load);

struct EdgeFacts {
  size_t d_model = 0;
  size_t hops = 1;                       // of the chain
  const BoundaryBasis* basis = nullptr;  // null: none yet
  double bytes_per_second = 0;           // of the link; 0: not measured
  bool same_machine = false;
  // By EdgeLoad: that the chain computes for one row, shared out to its hops; coding.
  std::array<double, kEdgeLoads.size()> compute_seconds = {};
  std::array<CodecCosts, kEdgeLoads.size()> costs = {};
};

// A level: its smallest codec, or int8 as long as there is no basis. kAuto: a codec is as good as
// under the load where it falls most behind the fastest one of that load, for an edge has one codec
// for both; of those within 3 % of the best the least lossy. A row's time: computing, encoding and
// decoding on the one side and bytes / bandwidth on the other overlap, as rows follow each other.
// Links that were not measured, or so fast that bytes don't matter, stay lossless. present stays
// unless that is 10 % better.
CodecSetting ChooseCodec(const CodecRequest& request, const EdgeFacts& facts,
                         std::optional<CodecSetting> present = std::nullopt);

}  // namespace efedllm

#endif  // EFEDLLM_SVD_CODEC_POLICY_H_
