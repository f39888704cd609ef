// What a compression's numbers say, in words and as JSON.
#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "app/model_compression.h"
#include "common/check.h"

namespace efedllm {
namespace {

// Differences of less are noise of the text.
constexpr double kClear = 1.1;

const MethodResult* Find(const CompressionReport& report, CompressionMethod method) {
  for (const MethodResult& result : report.methods) {
    if (result.method == method) return &result;
  }
  return nullptr;
}

std::string Times(double more, double less) {
  return absl::StrFormat("%.1f times", less > 0 ? more / less : 0.0);
}

// What knowing the inputs is worth to factors.
std::string CompareSvds(const CompressionReport& report) {
  const MethodResult* aware = Find(report, CompressionMethod::kFactors);
  const MethodResult* plain = Find(report, CompressionMethod::kPlainSvd);
  if (aware == nullptr || plain == nullptr || aware->mean_kl <= 0) return "";
  return absl::StrFormat(
      "At these bytes a plain truncated SVD has a mean KL of %.4g; factors made for the inputs "
      "have "
      "%.4g (%s less). ",
      plain->mean_kl, aware->mean_kl, Times(plain->mean_kl, aware->mean_kl));
}

// Low-rank forms beside plain quantization.
std::string CompareWithQuantization(const CompressionReport& report) {
  std::string text;
  const MethodResult* quantize = Find(report, CompressionMethod::kQuantize);
  const MethodResult* svd = Find(report, CompressionMethod::kSvd);
  if (svd == nullptr || quantize == nullptr) {
    const bool none = svd == nullptr && quantize == nullptr;
    absl::StrAppend(&text, none             ? "Neither quantization nor factors make it so small."
                           : svd == nullptr ? "Only plain quantization makes it so small."
                                            : "Only factors make it so small: plain quantization "
                                              "ends at 4.5 bits a weight.");
    return text;
  }
  const double low = svd->mean_kl, plain = quantize->mean_kl;
  if (plain <= low * kClear && low <= plain * kClear) {
    absl::StrAppendFormat(
        &text,
        "Plain quantization does as well at equal bytes (mean KL %.4g, low-rank %.4g) and is "
        "simpler and runs in other programs: use --method quantize.",
        plain, low);
  } else if (plain < low) {
    absl::StrAppendFormat(
        &text,
        "Plain quantization does better at equal bytes: mean KL %.4g, %s below the low-rank "
        "forms' %.4g. Use --method quantize.",
        plain, Times(low, plain), low);
  } else {
    absl::StrAppendFormat(
        &text,
        "Low-rank forms do better than plain quantization at equal bytes: mean KL %.4g, %s below "
        "%.4g. Use --method svd.",
        low, Times(plain, low), plain);
  }
  return text;
}

}  // namespace

absl::string_view MethodName(CompressionMethod method) {
  switch (method) {
    case CompressionMethod::kUniformSvd:
      return "uniform-svd";
    case CompressionMethod::kPlainSvd:
      return "plain-svd";
    case CompressionMethod::kFactors:
      return "factors";
    case CompressionMethod::kSvd:
      return "svd";
    case CompressionMethod::kQuantize:
      return "quantize";
    case CompressionMethod::kAny:
      return "any";
  }
  CheckFailed(__FILE__, __LINE__, "a method without a name");
}

std::optional<CompressionMethod> WritableMethod(absl::string_view name) {
  for (const CompressionMethod method : {CompressionMethod::kFactors, CompressionMethod::kSvd,
                                         CompressionMethod::kQuantize, CompressionMethod::kAny}) {
    if (name == MethodName(method)) return method;
  }
  return std::nullopt;
}

std::string Recommend(const CompressionReport& report) {
  std::string text = absl::StrCat(CompareSvds(report), CompareWithQuantization(report));
  const MethodResult* any = Find(report, CompressionMethod::kAny);
  const MethodResult* svd = Find(report, CompressionMethod::kSvd);
  const MethodResult* quantize = Find(report, CompressionMethod::kQuantize);
  const bool better = any != nullptr && (svd == nullptr || any->mean_kl * kClear < svd->mean_kl) &&
                      (quantize == nullptr || any->mean_kl * kClear < quantize->mean_kl);
  if (better && (svd != nullptr || quantize != nullptr)) {
    absl::StrAppendFormat(&text, " Both together do better still: mean KL %.4g with --method any.",
                          any->mean_kl);
  }
  return text;
}

nlohmann::json CompressionReportJson(const CompressionReport& report) {
  const auto method_json = [](const MethodResult& result) {
    return nlohmann::json{{"method", std::string(MethodName(result.method))},
                          {"bytes", result.bytes},
                          {"mean_kl", result.mean_kl},
                          {"max_kl", result.max_kl},
                          {"perplexity", result.perplexity},
                          {"expected_kl", result.expected_kl}};
  };
  nlohmann::json methods = nlohmann::json::array(), matrices = nlohmann::json::array();
  for (const MethodResult& result : report.methods) methods.push_back(method_json(result));
  for (const CompressedMatrix& matrix : report.matrices) {
    matrices.push_back({{"matrix", matrix.part},
                        {"form", matrix.form.Label()},
                        {"bytes_before", matrix.bytes_before},
                        {"bytes", matrix.bytes},
                        {"expected_kl", matrix.expected_kl}});
  }
  return {
      {"original", {{"bytes", report.original_bytes}, {"perplexity", report.original_perplexity}}},
      {"budget_bytes", report.budget_bytes},
      {"calibration_tokens", report.calibration_tokens},
      {"held_out_tokens", report.held_out_tokens},
      {"written", method_json(report.written)},
      {"methods", methods},
      {"matrices", matrices},
      {"recommendation", report.recommendation}};
}

}  // namespace efedllm
