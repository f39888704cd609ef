#include "model/hf_rope.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "model/hf_json.h"

namespace efedllm {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxHeadDim = 65536;

// Writes the keys of one model.
class RopeWriter {
 public:
  RopeWriter(const json& config, const HfClass& kind, uint64_t head_dim, ModelContents& model)
      : config_(config), kind_(kind), head_dim_(head_dim), model_(model) {}

  absl::Status Write() {
    if (head_dim_ == 0 || head_dim_ > kMaxHeadDim) {
      return absl::InvalidArgumentError(absl::StrCat("heads of ", head_dim_, " values"));
    }
    FindParameters();
    RETURN_IF_ERROR(WriteBases());
    RETURN_IF_ERROR(WriteDims());
    if (scaling_ == nullptr) return absl::OkStatus();
    ASSIGN_OR_RETURN(const std::string old_type, JsonStringOr(*scaling_, "type", "default"));
    ASSIGN_OR_RETURN(const std::string type, JsonStringOr(*scaling_, "rope_type", old_type));
    if (type == "default") return absl::OkStatus();
    if (type == "linear") return WriteLinear();
    if (type == "llama3") return WriteLlama3();
    if (type == "yarn") return WriteYarn();
    if (type == "longrope" || type == "su") return WriteLongRope();
    return absl::UnimplementedError(
        absl::StrCat("rope_scaling of type '", Printable(type),
                     "' is not supported (supported: default, linear, llama3, yarn, longrope)"));
  }

 private:
  void Set(absl::string_view name, MetadataValue value) {
    model_.Set(absl::StrCat(kind_.gguf_name, ".rope.", name), std::move(value));
  }

  // Newer files have all in "rope_parameters", Gemma's by the kind of layer.
  void FindParameters() {
    scaling_ = FindJson(config_, "rope_scaling");
    const json* all = FindJson(config_, "rope_parameters");
    if (all == nullptr) return;
    const json* full = FindJson(*all, "full_attention");
    local_ = FindJson(*all, "sliding_attention");
    scaling_ = full != nullptr ? full : all;
  }

  absl::Status WriteBases() {
    ASSIGN_OR_RETURN(double base, JsonNumberOr(config_, "rope_theta", kind_.rope_theta));
    if (scaling_ != nullptr) {
      ASSIGN_OR_RETURN(base, JsonNumberOr(*scaling_, "rope_theta", base));
    }
    if (!(base > 1) || !(base < 1e12)) {
      return absl::InvalidArgumentError(absl::StrCat("\"rope_theta\" is ", base));
    }
    base_ = static_cast<float>(base);
    Set("freq_base", double{base_});
    // Of layers with a window; a GGUF can't say it.
    constexpr double kLocalBase = 10000;
    ASSIGN_OR_RETURN(double local, JsonNumberOr(config_, "rope_local_base_freq", kLocalBase));
    if (local_ != nullptr) {
      ASSIGN_OR_RETURN(local, JsonNumberOr(*local_, "rope_theta", local));
    }
    if (local == kLocalBase) return absl::OkStatus();
    return absl::UnimplementedError(absl::StrCat(
        "\"rope_local_base_freq\": ", local, " is not supported (supported: ", kLocalBase, ")"));
  }

  absl::Status WriteDims() {
    ASSIGN_OR_RETURN(double share, JsonNumberOr(config_, "partial_rotary_factor", 1));
    if (scaling_ != nullptr) {
      ASSIGN_OR_RETURN(share, JsonNumberOr(*scaling_, "partial_rotary_factor", share));
    }
    if (!(share > 0 && share <= 1)) {
      return absl::InvalidArgumentError(absl::StrCat("\"partial_rotary_factor\" is ", share));
    }
    dims_ = static_cast<uint64_t>(static_cast<double>(head_dim_) * share);
    Set("dimension_count", dims_);
    return absl::OkStatus();
  }

  absl::StatusOr<double> Factor() {
    ASSIGN_OR_RETURN(const double factor, JsonNumberOr(*scaling_, "factor", 0));
    if (factor >= 1 && factor < 1e6) return factor;
    return absl::InvalidArgumentError(
        absl::StrCat("\"factor\" of \"rope_scaling\" is ", factor, ", not 1 or more"));
  }

  absl::StatusOr<uint64_t> Context() {
    return JsonUintOr(config_, "max_position_embeddings", kind_.context);
  }

  absl::StatusOr<uint64_t> OriginalContext() {
    ASSIGN_OR_RETURN(const uint64_t context, Context());
    ASSIGN_OR_RETURN(uint64_t original,
                     JsonUintOr(config_, "original_max_position_embeddings", context));
    ASSIGN_OR_RETURN(original, JsonUintOr(*scaling_, "original_max_position_embeddings", original));
    if (original > 1) return original;
    return absl::InvalidArgumentError("\"original_max_position_embeddings\" is not above 1");
  }

  absl::Status WriteLinear() {
    ASSIGN_OR_RETURN(const double factor, Factor());
    Set("scaling.type", "linear");
    Set("scaling.factor", factor);
    return absl::OkStatus();
  }

  // What rope_freqs.weight has in a GGUF.
  absl::Status WriteLlama3() {
    ASSIGN_OR_RETURN(const double factor, Factor());
    ASSIGN_OR_RETURN(const double low, JsonNumberOr(*scaling_, "low_freq_factor", 1));
    ASSIGN_OR_RETURN(const double high, JsonNumberOr(*scaling_, "high_freq_factor", 4));
    ASSIGN_OR_RETURN(const uint64_t original,
                     JsonUintOr(*scaling_, "original_max_position_embeddings", 8192));
    if (!(low > 0) || !(high > low) || original == 0) {
      return absl::InvalidArgumentError(
          "\"rope_scaling\" of type llama3 has no sane frequency factors");
    }
    const double context = static_cast<double>(original);
    std::vector<float> factors;
    for (uint64_t i = 0; i < dims_ / 2; ++i) {
      const double exponent = static_cast<double>(2 * i) / static_cast<double>(dims_);
      const double wavelength = 2 * 3.14159265358979323846 * std::pow(double{base_}, exponent);
      // 0: divided by the factor; 1: left alone.
      const double smooth = std::clamp((context / wavelength - low) / (high - low), 0.0, 1.0);
      factors.push_back(static_cast<float>(1 / ((1 - smooth) / factor + smooth)));
    }
    model_.AddF32("rope_freqs.weight", {dims_ / 2}, std::move(factors));
    return absl::OkStatus();
  }

  absl::Status WriteYarn() {
    ASSIGN_OR_RETURN(const double factor, Factor());
    ASSIGN_OR_RETURN(const uint64_t original, OriginalContext());
    ASSIGN_OR_RETURN(const double fast, JsonNumberOr(*scaling_, "beta_fast", 32));
    ASSIGN_OR_RETURN(const double slow, JsonNumberOr(*scaling_, "beta_slow", 1));
    // The attention's own factor follows from the scale.
    const double usual = 0.1 * std::log(factor) + 1;
    ASSIGN_OR_RETURN(const double magnitude, JsonNumberOr(*scaling_, "attention_factor", usual));
    if (!(std::abs(magnitude - usual) < 1e-4)) {
      return absl::UnimplementedError(
          absl::StrCat("\"attention_factor\": ", magnitude, " is not supported"));
    }
    for (const char* key : {"mscale", "mscale_all_dim"}) {
      if (FindJson(*scaling_, key) == nullptr) continue;
      return absl::UnimplementedError(
          absl::StrCat("\"", key, "\" of \"rope_scaling\" is not supported"));
    }
    Set("scaling.type", "yarn");
    Set("scaling.factor", factor);
    Set("scaling.original_context_length", original);
    Set("scaling.yarn_beta_fast", fast);
    Set("scaling.yarn_beta_slow", slow);
    // Such files often leave "max_position_embeddings" as it was before the scaling.
    ASSIGN_OR_RETURN(const uint64_t context, Context());
    const double reached = static_cast<double>(original) * factor;
    if (reached > static_cast<double>(context) && reached < 1e9) {
      model_.Set(absl::StrCat(kind_.gguf_name, ".context_length"), static_cast<uint64_t>(reached));
    }
    return absl::OkStatus();
  }

  absl::Status AddFactors(const char* key, absl::string_view tensor) {
    const json* factors = FindJson(*scaling_, key);
    if (factors == nullptr || !factors->is_array() || factors->size() != dims_ / 2) {
      return absl::InvalidArgumentError(
          absl::StrCat("\"", key, "\" of \"rope_scaling\" is not a list of ", dims_ / 2));
    }
    std::vector<float> values;
    for (const json& factor : *factors) {
      if (!factor.is_number()) {
        return absl::InvalidArgumentError(
            absl::StrCat("\"", key, "\" has an entry that is no number"));
      }
      values.push_back(factor.get<float>());
    }
    model_.AddF32(tensor, {dims_ / 2}, std::move(values));
    return absl::OkStatus();
  }

  absl::Status WriteLongRope() {
    RETURN_IF_ERROR(AddFactors("long_factor", "rope_factors_long.weight"));
    RETURN_IF_ERROR(AddFactors("short_factor", "rope_factors_short.weight"));
    ASSIGN_OR_RETURN(const uint64_t original, OriginalContext());
    ASSIGN_OR_RETURN(const uint64_t context, Context());
    const double scale = static_cast<double>(context) / static_cast<double>(original);
    const double usual =
        scale <= 1 ? 1 : std::sqrt(1 + std::log(scale) / std::log(static_cast<double>(original)));
    ASSIGN_OR_RETURN(const double magnitude, JsonNumberOr(*scaling_, "attention_factor", usual));
    Set("scaling.type", "longrope");
    Set("scaling.original_context_length", original);
    Set("scaling.attn_factor", magnitude);
    return absl::OkStatus();
  }

  const json& config_;
  const HfClass& kind_;
  const uint64_t head_dim_;
  ModelContents& model_;
  const json* scaling_ = nullptr;
  const json* local_ = nullptr;  // of Gemma's layers with a window
  float base_ = 0;
  uint64_t dims_ = 0;
};

}  // namespace

absl::Status WriteHfRope(const json& config, const HfClass& kind, uint64_t head_dim,
                         ModelContents& model) {
  return RopeWriter(config, kind, head_dim, model).Write();
}

}  // namespace efedllm
