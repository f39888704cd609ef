#include "app/bench_local.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "common/random.h"
#include "common/status_macros.h"
#include "common/units.h"
#include "coordinator/scheduler.h"
#include "layers/kv_cache.h"

namespace efedllm {
namespace {

constexpr uint64_t kSeed = 1;

uint64_t WholePages(uint64_t positions) {
  constexpr uint64_t kPage = KvCache::kPagePositions;
  return (positions + kPage - 1) / kPage * kPage;
}

// Which tokens doesn't matter to the speed, but to a mixture's experts; so they are the same in
// every run.
std::vector<int32_t> RandomTokens(uint32_t count, uint32_t vocab, uint64_t seed) {
  Random random(seed);
  std::vector<int32_t> tokens(count);
  for (int32_t& token : tokens) token = static_cast<int32_t>(random.Below(vocab));
  return tokens;
}

}  // namespace

std::string BenchTestName(const BenchTest& test) {
  std::string name = absl::StrCat(test.decode ? "tg" : "pp", test.tokens);
  if (test.sequences > 1) absl::StrAppend(&name, "@", test.sequences);
  if (test.depth > 0) absl::StrAppend(&name, "@d", test.depth);
  return name;
}

double BenchResult::median() const {
  std::vector<double> sorted = samples;
  std::sort(sorted.begin(), sorted.end());
  const size_t n = sorted.size();
  return n % 2 == 1 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2;
}

double BenchResult::deviation() const {
  if (samples.size() < 2) return 0;
  const double n = static_cast<double>(samples.size());
  const double mean = std::accumulate(samples.begin(), samples.end(), 0.0) / n;
  double squares = 0;
  for (const double sample : samples) squares += (sample - mean) * (sample - mean);
  return std::sqrt(squares / (n - 1));
}

nlohmann::json BenchJson(const std::vector<BenchResult>& results) {
  nlohmann::json json = nlohmann::json::array();
  for (const BenchResult& result : results) {
    json.push_back({{"test", BenchTestName(result.test)},
                    {"threads", result.threads},
                    {"median", result.median()},
                    {"samples", result.samples}});
  }
  return json;
}

std::string BenchTableHeader() {
  return absl::StrFormat("| %-28s | %10s | %8s | %7s | %16s | %19s |\n", "model", "size", "params",
                         "threads", "test", "t/s") +
         "| ---------------------------- | ---------: | -------: | ------: | ---------------: | "
         "------------------: |\n";
}

std::string BenchTableRow(const ModelSummary& model, const BenchResult& result) {
  return absl::StrFormat("| %-28.28s | %10s | %8s | %7d | %16s | %9.2f ± %7.2f |\n", model.title(),
                         FormatBytes(model.bytes), FormatParameters(model.parameters),
                         result.threads, BenchTestName(result.test), result.median(),
                         result.deviation());
}

std::vector<BenchTest> BenchTests(const std::vector<uint32_t>& prompts,
                                  const std::vector<uint32_t>& decodes,
                                  const std::vector<uint32_t>& batches,
                                  const std::vector<uint32_t>& depths) {
  std::vector<BenchTest> tests;
  for (const uint32_t depth : depths) {
    for (const uint32_t tokens : prompts) {
      if (tokens > 0) tests.push_back({false, tokens, 1, depth});
    }
    for (const uint32_t tokens : decodes) {
      if (tokens == 0) continue;
      for (const uint32_t sequences : batches) tests.push_back({true, tokens, sequences, depth});
    }
  }
  return tests;
}

LocalModelOptions BenchModelOptions(const std::vector<BenchTest>& tests) {
  LocalModelOptions options;
  uint64_t longest = 0;
  uint32_t sequences = 1;
  for (const BenchTest& test : tests) {
    longest = std::max(longest, WholePages(uint64_t{test.depth} + test.tokens));
    sequences = std::max(sequences, test.sequences);
  }
  options.max_tokens = SchedulerOptions().max_step_tokens;
  options.max_sequences = sequences;
  options.context = static_cast<uint32_t>(longest);
  options.kv_tokens = longest * sequences;
  return options;
}

uint64_t BenchTokens(const BenchTest& test) { return uint64_t{test.tokens} * test.sequences; }

// As the scheduler does it: chunk by chunk, and the head for the last position alone.
absl::Status BenchRunner::Prompt(SequenceId sequence, uint32_t first, uint32_t tokens) {
  const ModelConfig& config = model_.config();
  const std::vector<int32_t> prompt = RandomTokens(tokens, config.vocab, kSeed + sequence.v);
  const uint32_t chunk = model_.options().max_tokens;
  Matrix hidden(std::min(chunk, tokens), config.d_model);
  for (uint32_t done = 0; done < tokens; done += chunk) {
    const uint32_t count = std::min(chunk, tokens - done);
    Step step;
    step.spans = {{sequence, first + done, count}};
    RETURN_IF_ERROR(model_.RunStages(step, absl::MakeConstSpan(prompt).subspan(done, count),
                                     {hidden.row(0), count, hidden.cols()}));
    if (done + count < tokens) continue;
    Matrix logits(1, config.vocab);
    model_.Logits({hidden.row(count - 1), 1, hidden.cols()}, logits.ref());
  }
  return absl::OkStatus();
}

absl::Status BenchRunner::Fill(const BenchTest& test) {
  if (test.depth != depth_) filled_ = 0;
  depth_ = test.depth;
  if (depth_ == 0) return absl::OkStatus();
  for (; filled_ < test.sequences; ++filled_) {
    RETURN_IF_ERROR(Prompt(SequenceId{filled_ + 1}, 0, depth_));
  }
  return absl::OkStatus();
}

absl::Status BenchRunner::Decode(const BenchTest& test) {
  const ModelConfig& config = model_.config();
  std::vector<int32_t> next = RandomTokens(test.sequences, config.vocab, kSeed);
  Matrix logits(test.sequences, config.vocab);
  Step step;
  for (uint32_t i = 0; i < test.sequences; ++i) {
    step.spans.push_back({SequenceId{i + 1}, test.depth, 1});
  }
  for (uint32_t done = 0; done < test.tokens; ++done) {
    RETURN_IF_ERROR(model_.Forward(step, next, logits.ref()));
    for (uint32_t i = 0; i < test.sequences; ++i) {
      next[i] = static_cast<int32_t>(ArgMax({logits.row(i), logits.cols()}));
      ++step.spans[i].first_position;
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<double> BenchRunner::Run(const BenchTest& test) {
  RETURN_IF_ERROR(Fill(test));
  const absl::Time start = SteadyNow();
  RETURN_IF_ERROR(test.decode ? Decode(test) : Prompt(SequenceId{1}, test.depth, test.tokens));
  // A clock that stands still is not to divide by.
  return std::max(absl::ToDoubleSeconds(SteadyNow() - start), 1e-9);
}

}  // namespace efedllm
