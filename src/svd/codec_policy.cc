#include "svd/codec_policy.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "tensor/matrix.h"

namespace efedllm {
namespace {

constexpr std::pair<CodecLevel, absl::string_view> kLevels[] = {
    {CodecLevel::kLossless, "lossless"}, {CodecLevel::kTransparent, "transparent"},
    {CodecLevel::kBalanced, "balanced"}, {CodecLevel::kSmall, "small"},
    {CodecLevel::kAuto, "auto"},
};

// Of a hop's share, as predicted from what the calibration's worst kind of text suffers: other
// texts suffer up to a quarter more in narrow models, of whose kind the sample has little.
constexpr double kBudgetUsed = 0.75;
// Beyond this a link is taken for endless: measurements say little there, and latency counts.
constexpr double kFastLink = 200e6;
// Steps follow each other through a chain, so that computing or sending sets the pace, whichever
// takes longer; a lone sequence, and the first step of a prompt, wait for both. Their weight:
constexpr double kAlone = 0.25;
constexpr double kTolerance = 1.03;
constexpr double kWorthSwitching = 1.10;
// Drives a codec's tables out of the caches.
constexpr size_t kOtherMemory = size_t{32} << 20, kCacheLine = 64;

const CoefficientModel& ModelOf(CodecId codec, const BoundaryBasis& basis) {
  return codec == CodecId::kKlt ? basis.klt : basis.scalar;
}

// Entropy in bits of a Gaussian of that standard deviation, in steps, rounded to whole steps: exact
// for large ones, and near enough for small ones.
double GaussianBits(double sigma) {
  constexpr double kTwoPiE = 17.0794684453;
  return 0.5 * std::log2(1 + kTwoPiE * sigma * sigma);
}

double RowSeconds(CodecSetting setting, const EdgeFacts& facts, EdgeLoad load) {
  const double transfer =
      facts.bytes_per_second > 0 && facts.bytes_per_second < kFastLink && !facts.same_machine
          ? ExpectedRowBytes(setting, facts.d_model, facts.basis) / facts.bytes_per_second
          : 0;
  const auto i = static_cast<size_t>(load);
  const double work = facts.compute_seconds[i] + facts.costs[i].of(setting.id);
  return std::max(work, transfer) + kAlone * (work + transfer);
}

// From lossless to the most lossy.
std::vector<CodecSetting> Candidates(const EdgeFacts& facts) {
  std::vector<CodecSetting> candidates = {
      {CodecId::kF32, 0}, {CodecId::kF16, 0}, {CodecId::kInt8, 0}};
  if (facts.basis == nullptr) return candidates;
  for (const CodecLevel level :
       {CodecLevel::kTransparent, CodecLevel::kBalanced, CodecLevel::kSmall}) {
    for (const CodecId codec : {CodecId::kScalar, CodecId::kKlt}) {
      candidates.push_back(SettingFor(level, codec, *facts.basis, facts.hops));
    }
  }
  return candidates;
}

CodecSetting ChooseByTime(const EdgeFacts& facts, std::optional<CodecSetting> present) {
  const std::vector<CodecSetting> candidates = Candidates(facts);
  std::array<double, kEdgeLoads.size()> fastest;
  fastest.fill(std::numeric_limits<double>::infinity());
  for (const EdgeLoad load : kEdgeLoads) {
    double& least = fastest[static_cast<size_t>(load)];
    for (const CodecSetting& candidate : candidates) {
      least = std::min(least, RowSeconds(candidate, facts, load));
    }
  }
  // How many times as long as the load's fastest, at worst.
  const auto behind = [&](CodecSetting setting) {
    double worst = 1;
    for (const EdgeLoad load : kEdgeLoads) {
      const double least = fastest[static_cast<size_t>(load)];
      if (least > 0) worst = std::max(worst, RowSeconds(setting, facts, load) / least);
    }
    return worst;
  };
  double least_behind = std::numeric_limits<double>::infinity();
  for (const CodecSetting& candidate : candidates) {
    least_behind = std::min(least_behind, behind(candidate));
  }
  const CodecSetting chosen =
      *std::find_if(candidates.begin(), candidates.end(), [&](const CodecSetting& candidate) {
        return behind(candidate) <= kTolerance * least_behind;
      });
  // Candidates change with the basis and the number of hops; what is none any more goes.
  const bool valid =
      present && std::find(candidates.begin(), candidates.end(), *present) != candidates.end();
  return valid && behind(*present) < kWorthSwitching * behind(chosen) ? *present : chosen;
}

}  // namespace

std::optional<CodecLevel> CodecLevelFromName(absl::string_view name) {
  for (const auto& [level, its_name] : kLevels) {
    if (name == its_name) return level;
  }
  return std::nullopt;
}

absl::string_view CodecLevelName(CodecLevel level) {
  for (const auto& [known, name] : kLevels) {
    if (known == level) return name;
  }
  return "?";
}

std::optional<CodecRequest> CodecRequest::FromName(absl::string_view name) {
  if (const std::optional<CodecLevel> level = CodecLevelFromName(name)) {
    return CodecRequest{*level, std::nullopt};
  }
  const std::optional<CodecId> codec = CodecFromName(name);
  if (!codec || CodecSetting{*codec, 0}.needs_basis()) return std::nullopt;
  return CodecRequest{CodecLevel::kLossless, codec};
}

std::string CodecRequest::name() const {
  return std::string(fixed ? CodecName(*fixed) : CodecLevelName(level));
}

double KlBudget(CodecLevel level) {
  switch (level) {
    case CodecLevel::kTransparent:
      return 1e-3;
    case CodecLevel::kBalanced:
      return 1e-2;
    case CodecLevel::kSmall:
      return 3e-2;
    case CodecLevel::kLossless:
    case CodecLevel::kAuto:
      break;
  }
  return 0;
}

CodecSetting SettingFor(CodecLevel level, CodecId codec, const BoundaryBasis& basis, size_t hops) {
  const double share =
      kBudgetUsed * KlBudget(level) / static_cast<double>(std::max<size_t>(hops, 1));
  const auto step = static_cast<float>(std::min(1.0, ModelOf(codec, basis).StepFor(share)));
  return {codec, static_cast<uint8_t>(StepIndexBelow(step))};
}

double ExpectedRowBytes(CodecSetting setting, size_t d_model, const BoundaryBasis* basis) {
  const auto d = static_cast<double>(d_model);
  switch (setting.id) {
    case CodecId::kF32:
      return 4 * d;
    case CodecId::kF16:
      return 2 * d;
    case CodecId::kInt8:
      return d + 2 * std::ceil(d / 32);
    case CodecId::kScalar:
    case CodecId::kKlt:
      break;
  }
  if (basis == nullptr) return 4 * d;
  double bits = 8 + 16 * static_cast<double>(basis->massive.size());
  const double log_step = 64 * std::log2(static_cast<double>(StepSize(setting.step)));
  for (const int16_t log_sigma : ModelOf(setting.id, *basis).log_sigma) {
    bits += GaussianBits(std::exp2((log_sigma - log_step) / 64));
  }
  return bits / 8;
}

double CodecCosts::of(CodecId codec) const {
  switch (codec) {
    case CodecId::kF32:
      return f32;
    case CodecId::kF16:
      return f16;
    case CodecId::kInt8:
      return int8;
    case CodecId::kScalar:
      return scalar;
    case CodecId::kKlt:
      return klt;
  }
  return 0;
}

CodecCosts MeasureCodecCosts(size_t d_model, const BoundaryBasis* basis, EdgeLoad load) {
  const size_t rows = std::min<size_t>(TypicalRows(load), 64);  // more change nothing any more
  std::vector<uint8_t> others(load == EdgeLoad::kDecoding ? kOtherMemory : 0, 1);
  constexpr int kRounds = 3;
  // Deterministic values of about the right spread: what they are hardly changes the time.
  Matrix in(rows, d_model), out(rows, d_model);
  uint32_t state = 1;
  for (float& value : in.ref().span()) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<float>(static_cast<int32_t>(state)) / 2147483648.0F;
  }
  const std::shared_ptr<const BoundaryBasis> borrowed(std::shared_ptr<void>(), basis);
  ActivationCodec codec(d_model, borrowed);
  const auto measure = [&](CodecSetting setting) {
    double best = 0;
    for (int round = 0; round < kRounds; ++round) {
      for (size_t i = 0; i < others.size(); i += kCacheLine) ++others[i];
      const auto start = std::chrono::steady_clock::now();
      std::string bytes;
      codec.Encode(setting, in.ref(), bytes);
      const auto encoded =
          absl::MakeConstSpan(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
      if (!codec.Decode(setting, encoded, out.ref()).ok()) return 0.0;
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
      if (round == 0 || took.count() < best) best = took.count();
    }
    return best / static_cast<double>(rows);
  };
  CodecCosts costs;
  costs.f32 = measure({CodecId::kF32, 0});
  costs.f16 = measure({CodecId::kF16, 0});
  costs.int8 = measure({CodecId::kInt8, 0});
  if (basis == nullptr) return costs;
  costs.scalar = measure(SettingFor(CodecLevel::kBalanced, CodecId::kScalar, *basis, 1));
  costs.klt = measure(SettingFor(CodecLevel::kBalanced, CodecId::kKlt, *basis, 1));
  return costs;
}

CodecSetting ChooseCodec(const CodecRequest& request, const EdgeFacts& facts,
                         std::optional<CodecSetting> present) {
  if (request.fixed) return {*request.fixed, 0};
  if (request.level == CodecLevel::kLossless) return {CodecId::kF32, 0};
  if (request.level == CodecLevel::kAuto) return ChooseByTime(facts, present);
  if (facts.basis == nullptr) return {CodecId::kInt8, 0};
  const CodecSetting scalar = SettingFor(request.level, CodecId::kScalar, *facts.basis, facts.hops);
  const CodecSetting klt = SettingFor(request.level, CodecId::kKlt, *facts.basis, facts.hops);
  return ExpectedRowBytes(klt, facts.d_model, facts.basis) <=
                 ExpectedRowBytes(scalar, facts.d_model, facts.basis)
             ? klt
             : scalar;
}

}  // namespace efedllm
