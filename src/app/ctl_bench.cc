#include "app/ctl_bench.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "app/bench_local.h"
#include "app/local_run.h"
#include "common/machine.h"
#include "common/status_macros.h"
#include "model/model_summary.h"

namespace efedllm {
namespace {

struct BenchFlags {
  LocalFlags local;
  std::vector<uint32_t> prompts = {512};
  std::vector<uint32_t> decodes = {64};
  std::vector<uint32_t> batches = {1};
  std::vector<uint32_t> depths = {0};
  std::vector<int> threads;
  uint32_t repetitions = 3;
};

// A line on the terminal that the next one writes over; none where stderr is something else.
class Progress {
 public:
  void Show(const std::string& text) const {
    if (terminal_) std::fprintf(stderr, "\r\033[K%s", text.c_str());
  }
  ~Progress() { Show(""); }

 private:
  const bool terminal_ = isatty(STDERR_FILENO) != 0;
};

// One untimed run, which wakes the threads and touches all memory, and then the timed ones.
absl::StatusOr<BenchResult> Measure(BenchRunner& runner, const BenchTest& test, int threads,
                                    uint32_t repetitions, const Progress& progress) {
  BenchResult result{test, threads, {}};
  for (uint32_t i = 0; i <= repetitions; ++i) {
    progress.Show(absl::StrCat(BenchTestName(test), ", ", threads, " threads: ",
                               i == 0 ? "warming up" : absl::StrCat("run ", i, "/", repetitions)));
    ASSIGN_OR_RETURN(const double seconds, runner.Run(test));
    if (i > 0) result.samples.push_back(static_cast<double>(BenchTokens(test)) / seconds);
  }
  progress.Show("");
  return result;
}

absl::Status RunBench(BenchFlags flags) {
  if (flags.threads.empty()) flags.threads = {AvailableCpus()};
  const std::vector<BenchTest> tests =
      BenchTests(flags.prompts, flags.decodes, flags.batches, flags.depths);
  if (tests.empty()) {
    return absl::InvalidArgumentError("nothing to measure: give -p or -n a number above 0");
  }
  const Progress progress;
  progress.Show(absl::StrCat("loading ", flags.local.model));
  flags.local.threads = *std::max_element(flags.threads.begin(), flags.threads.end());
  ASSIGN_OR_RETURN(const std::unique_ptr<LocalRun> run,
                   OpenLocal(flags.local, BenchModelOptions(tests)));
  const ModelSummary model = SummarizeModel(run->file);
  BenchRunner runner(*run->model);
  std::vector<BenchResult> results;
  if (!flags.local.json) std::printf("%s", BenchTableHeader().c_str());
  for (const int threads : flags.threads) {
    // The model borrows the team through run->compute, and runs nothing now.
    ASSIGN_OR_RETURN(run->compute, Compute::Create(threads, flags.local.kernels));
    for (const BenchTest& test : tests) {
      ASSIGN_OR_RETURN(BenchResult result,
                       Measure(runner, test, threads, flags.repetitions, progress));
      if (!flags.local.json) std::printf("%s", BenchTableRow(model, result).c_str());
      std::fflush(stdout);
      results.push_back(std::move(result));
    }
  }
  if (flags.local.json) std::printf("%s\n", BenchJson(results).dump().c_str());
  return absl::OkStatus();
}

template <class T>
void AddList(CLI::App& command, const std::string& name, std::vector<T>& list, T least, T most,
             const std::string& help) {
  command.add_option(name, list, help)
      ->delimiter(',')
      ->check(CLI::Range(least, most))
      ->capture_default_str();
}

void AddLocalCommand(CLI::App& bench, int& exit_code) {
  auto flags = std::make_shared<BenchFlags>();
  CLI::App* command = bench.add_subcommand(
      "local",
      "Measure a model on this machine, without a cluster: tokens per second of\n"
      "  pp512        a prompt of 512 tokens, in the chunks in which the coordinator computes it\n"
      "  tg64         64 decode steps of one sequence: embedding, layers, head, greedy choice\n"
      "  tg64@8       the same of 8 sequences at once, all of their tokens counted\n"
      "  tg64@d8192   the same with 8192 tokens in the context before the clock starts\n"
      "Each number that has a list is measured with each of the others. Every test first runs\n"
      "once untimed. The table has the median and the standard deviation.");
  command->footer(
      "Example: efedllm-ctl bench local --model model.gguf -p 128,512 -n 64 -b 1,8 -t 1,2 -r 5\n"
      "Comparable to llama-bench -p 512 -n 64 -t 2, and llama-batched-bench for -b.");
  AddModelFlags(*command, flags->local, "auto");
  constexpr uint32_t kMostTokens = 1u << 20;
  AddList<uint32_t>(*command, "-p,--prompt", flags->prompts, 0, kMostTokens,
                    "Prompt lengths, with commas between them; 0: no prompt test");
  AddList<uint32_t>(*command, "-n,--decode", flags->decodes, 0, kMostTokens,
                    "Decode steps; 0: no decode test");
  AddList<uint32_t>(*command, "-b,--batch", flags->batches, 1, 1024,
                    "Sequences that decode at once");
  AddList<uint32_t>(*command, "-d,--depth", flags->depths, 0, kMostTokens,
                    "Tokens that are in the context already");
  AddList<int>(*command, "-t,--threads", flags->threads, 1, 1024,
               "Threads that compute; default: one per CPU");
  command->add_option("-r,--repetitions", flags->repetitions, "Timed runs of each test")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  AddJsonFlag(*command, flags->local,
              "[{\"test\", \"threads\", \"median\", \"samples\"}] instead, in tokens per second");
  OnCommand(*command, exit_code, [flags] { return RunBench(*flags); });
}

}  // namespace

void AddBenchCommand(CLI::App& root, int& exit_code) {
  CLI::App* bench = root.add_subcommand("bench", "Measure speed");
  bench->require_subcommand(1);
  AddLocalCommand(*bench, exit_code);
}

}  // namespace efedllm
