#include "coordinator/boundary_calibration_kinds.h"

#include <algorithm>
#include <limits>
#include <map>
#include <memory>

#include "absl/types/span.h"
#include "common/status_macros.h"
#include "model/boundary_rows.h"
#include "model/embedding.h"
#include "model/text_quality.h"
#include "spdlog/spdlog.h"

namespace efedllm {
namespace {

// In nats of a token, of the best kind's loss.
constexpr double kFactor = 1.5, kMargin = 1;

struct Loss {
  double sum = 0;
  uint64_t tokens = 0;

  double mean() const { return sum / static_cast<double>(std::max<uint64_t>(1, tokens)); }
};

std::string FamilyOf(const std::string& kind) { return kind.substr(0, kind.find('.')); }

}  // namespace

absl::Status RunWindows(const ModelFile& file, const ModelConfig& config,
                        const TokenWindows& windows, Compute& compute,
                        const std::function<bool()>& cancelled,
                        absl::FunctionRef<void(uint32_t boundary, ConstMatrixRef rows)> visit) {
  std::vector<int32_t> tokens;
  for (const std::vector<int32_t>& window : windows.windows) {
    tokens.insert(tokens.end(), window.begin(), window.end());
  }
  Matrix hidden(tokens.size(), config.d_model);
  ASSIGN_OR_RETURN(const Embedding embedding, Embedding::Create(config, file));
  RETURN_IF_ERROR(embedding.Lookup(tokens, hidden.ref()));
  visit(0, hidden.ref());
  for (uint32_t layer = 0; layer < config.layers; ++layer) {
    RETURN_IF_ERROR(
        RunOneLayer(file, config, layer, windows.lengths(), {hidden.ref()}, compute, cancelled));
    visit(layer + 1, hidden.ref());
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> FamiliarKinds(const ModelFile& file,
                                                       const ModelConfig& config,
                                                       const TokenWindows& windows,
                                                       Compute& compute,
                                                       const std::function<bool()>& cancelled) {
  Matrix last;
  RETURN_IF_ERROR(RunWindows(file, config, windows, compute, cancelled,
                             [&](uint32_t boundary, ConstMatrixRef rows) {
                               if (boundary != config.layers) return;
                               last = Matrix(rows.rows, rows.cols);
                               std::copy_n(rows.data, rows.rows * rows.cols, last.row(0));
                             }));
  ASSIGN_OR_RETURN(const std::unique_ptr<OutputHead> head,
                   OutputHead::Create(config, file, compute));
  std::map<std::string, Loss> losses;
  size_t row = 0;
  for (size_t i = 0; i < windows.windows.size(); ++i) {
    const std::vector<int32_t>& window = windows.windows[i];
    Matrix logits(1, config.vocab);
    Loss& loss = losses[windows.kinds[i]];
    for (size_t k = 0; k < window.size(); ++k, ++row) {
      if (k + 1 == window.size()) continue;
      head->Logits({last.row(row), 1, last.cols()}, logits.ref());
      loss.sum -= LogProbability({logits.row(0), logits.cols()}, window[k + 1]);
      ++loss.tokens;
    }
  }
  // A family is known as well as its best kind.
  std::map<std::string, double> families;
  double best = std::numeric_limits<double>::infinity();
  for (const auto& [kind, loss] : losses) {
    if (loss.tokens == 0) continue;
    best = std::min(best, loss.mean());
    const auto [family, added] = families.emplace(FamilyOf(kind), loss.mean());
    if (!added) family->second = std::min(family->second, loss.mean());
  }
  std::vector<std::string> kinds;
  for (const auto& [kind, loss] : losses) {
    const auto family = families.find(FamilyOf(kind));
    const bool familiar = family != families.end() && family->second <= kFactor * best + kMargin;
    if (familiar) kinds.push_back(kind);
    spdlog::debug("calibration: {:.2f} nats a token in text of kind {}{}", loss.mean(), kind,
                  familiar ? "" : ", which is left out");
  }
  return kinds;
}

}  // namespace efedllm
