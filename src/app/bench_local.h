// How fast a model runs on this machine alone: the tests of `efedllm-ctl bench local`.
#ifndef EFEDLLM_APP_BENCH_LOCAL_H_
#define EFEDLLM_APP_BENCH_LOCAL_H_

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "cluster/step.h"
#include "model/local_model.h"
#include "model/model_summary.h"

namespace efedllm {

// Either a prompt of `tokens` tokens, or `tokens` decode steps of `sequences` sequences at once;
// with `depth` tokens in each sequence's context before the clock starts.
struct BenchTest {
  bool decode = false;
  uint32_t tokens = 0;
  uint32_t sequences = 1;
  uint32_t depth = 0;
};

// "pp512", "tg64", "tg64@8", "tg64@d8192".
std::string BenchTestName(const BenchTest& test);

struct BenchResult {
  BenchTest test;
  int threads = 0;
  std::vector<double> samples;  // tokens per second, of all sequences together; at least one

  double median() const;
  double deviation() const;  // standard; 0 of one sample
};

// [{"test", "threads", "median", "samples"}].
nlohmann::json BenchJson(const std::vector<BenchResult>& results);

// As llama-bench has it, in Markdown.
std::string BenchTableHeader();
std::string BenchTableRow(const ModelSummary& model, const BenchResult& result);

// The tests that these lists ask for, those of one depth behind each other. A 0 in prompts or
// decodes asks for none.
std::vector<BenchTest> BenchTests(const std::vector<uint32_t>& prompts,
                                  const std::vector<uint32_t>& decodes,
                                  const std::vector<uint32_t>& batches,
                                  const std::vector<uint32_t>& depths);
// What a model needs to run them: positions of a sequence, and of all together.
LocalModelOptions BenchModelOptions(const std::vector<BenchTest>& tests);

// Runs tests on one model, whose context it fills only once for all tests of a depth. Not
// thread-safe.
class BenchRunner {
 public:
  // model is borrowed; made with BenchModelOptions.
  explicit BenchRunner(LocalModel& model) : model_(model) {}

  // Seconds that the test took once. Errors as LocalModel's.
  absl::StatusOr<double> Run(const BenchTest& test);

 private:
  absl::Status Prompt(SequenceId sequence, uint32_t first, uint32_t tokens);
  absl::Status Fill(const BenchTest& test);
  absl::Status Decode(const BenchTest& test);

  LocalModel& model_;
  uint32_t depth_ = 0;   // of the sequences that are filled
  uint32_t filled_ = 0;  // sequences 1 to this one
};

// Tokens that a run of the test counts.
uint64_t BenchTokens(const BenchTest& test);

}  // namespace efedllm

#endif  // EFEDLLM_APP_BENCH_LOCAL_H_
