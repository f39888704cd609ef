// codec report: what every codec costs a model, measured and drawn.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "app/codec_report.h"
#include "app/codec_report_pages.h"
#include "app/coded_model_choice.h"
#include "app/ctl_codec_parts.h"
#include "app/ctl_eval_text_coded.h"
#include "app/local_run.h"
#include "app/progress_line.h"
#include "app/text_input.h"
#include "common/file.h"
#include "common/status_macros.h"
#include "model/model_config.h"

namespace efedllm {
namespace {

constexpr uint32_t kWindow = 512;
constexpr uint32_t kMostBoundaries = 9;

struct ReportFlags {
  LocalFlags local;
  std::string text, tasks, out, state_dir;
  uint32_t stages = 0;
  uint32_t tokens = 16384;
  uint32_t batch = 8;
  double minutes = 10;
};

absl::StatusOr<std::vector<EvalTask>> ReadTasks(const std::string& path) {
  if (path.empty()) return std::vector<EvalTask>{};
  ASSIGN_OR_RETURN(const std::string text, ReadText(path));
  absl::StatusOr<std::vector<EvalTask>> tasks = ParseEvalTasks(text);
  if (tasks.ok()) return tasks;
  return absl::Status(tasks.status().code(), absl::StrCat(path, ": ", tasks.status().message()));
}

// The text's first windows, of so many tokens.
absl::StatusOr<TextWindows> ReadHeldOut(const ReportFlags& flags, const ModelFile& file,
                                        uint32_t window) {
  ASSIGN_OR_RETURN(const std::string text, ReadText(flags.text));
  ASSIGN_OR_RETURN(TextWindows all, CutDocuments(text, file, window));
  TextWindows windows;
  for (std::vector<int32_t>& one : all.windows) {
    if (!windows.windows.empty() && windows.predictions() + one.size() > flags.tokens) break;
    windows.windows.push_back(std::move(one));
  }
  return windows;
}

absl::Status WritePages(const CodecReport& report, const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) {
    return absl::PermissionDeniedError(
        absl::StrCat("--out: ", folder, " can't be made: ", error.message()));
  }
  const std::pair<const char*, std::string> files[] = {
      {"report.html", CodecReportHtml(report)},
      {"report.md", CodecReportTable(report)},
      {"report.json", CodecReportJson(report).dump(1) + "\n"},
      {"together.svg", TogetherSvg(report)},
      {"boundaries.svg", BoundariesSvg(report)},
      {"spectra.svg", SpectraSvg(report)}};
  for (const auto& [name, content] : files) {
    RETURN_IF_ERROR(WriteFileAtomically(absl::StrCat(folder, "/", name), content, 0644));
  }
  return absl::OkStatus();
}

absl::Status RunReport(const ReportFlags& flags) {
  ASSIGN_OR_RETURN(const std::vector<EvalTask> tasks, ReadTasks(flags.tasks));
  ASSIGN_OR_RETURN(const ModelFile file, ModelFile::Open(flags.local.model));
  ASSIGN_OR_RETURN(const ModelConfig config, ModelConfigFromFile(file));
  // After every second layer, as far as they can be looked at.
  const uint32_t stages = flags.stages > 0
                              ? flags.stages
                              : std::clamp((config.layers + 1) / 2, 2u, kMostBoundaries + 1);
  ASSIGN_OR_RETURN(std::vector<LayerRange> ranges, EqualStages(config.layers, stages));
  const uint32_t window = std::min(kWindow, config.context);
  ASSIGN_OR_RETURN(const TextWindows text, ReadHeldOut(flags, file, window));
  std::vector<uint32_t> boundaries;
  boundaries.reserve(ranges.size());
  for (const LayerRange& range : ranges) {
    if (range.first > 0) boundaries.push_back(range.first);
  }
  ASSIGN_OR_RETURN(const BoundaryBases bases,
                   FindBases(file, std::move(boundaries), flags.local, flags.state_dir));
  ASSIGN_OR_RETURN(
      const std::unique_ptr<LocalRun> run,
      OpenLocal(flags.local, CodecReportModelOptions(std::move(ranges), window, flags.batch)));
  CodecReport report;
  {
    const ProgressLine progress;
    CodecReportOptions options;
    options.decoding_batch = flags.batch;
    options.seconds = 60 * flags.minutes;
    options.progress = [&progress](double share, absl::string_view what) {
      progress.Show(share, what);
    };
    ASSIGN_OR_RETURN(report, MeasureCodecs(*run, bases, text, tasks, options));
  }
  report.model = std::filesystem::path(flags.local.model).filename().string();
  if (!flags.out.empty()) RETURN_IF_ERROR(WritePages(report, flags.out));
  if (flags.local.json) {
    std::printf("%s\n", CodecReportJson(report).dump().c_str());
  } else {
    std::printf("%s", CodecReportTable(report).c_str());
    if (!flags.out.empty()) std::printf("\n%s/report.html has the plots.\n", flags.out.c_str());
  }
  return absl::OkStatus();
}

}  // namespace

void AddCodecReportCommand(CLI::App& codec, int& exit_code) {
  auto flags = std::make_shared<ReportFlags>();
  CLI::App* command = codec.add_subcommand(
      "report",
      "Measure what every codec costs a model: bytes a token and hop against the divergence of "
      "its\n"
      "predictions, perplexity and task accuracy, all boundaries together and each alone, and the\n"
      "spectra of what is coded. Takes minutes.");
  command->footer(
      "Example: efedllm-ctl codec report --model models/seedling/seedling-f16.gguf --text "
      "held-out.txt\n"
      "         --tasks models/seedling/eval.jsonl --out report");
  AddModelFlags(*command, flags->local, "f32");
  command->add_option("--text", flags->text, "File with held-out text; - reads standard input")
      ->required();
  command->add_option("--tasks", flags->tasks, "Questions, as eval tasks takes them");
  command->add_option("--out", flags->out,
                      "Folder for report.html, report.md, report.json and the plots as SVG");
  command
      ->add_option("--stages", flags->stages,
                   "Stages that the layers are split into; 0: of two layers each, at most 10")
      ->check(CLI::Range(0u, 1024u))
      ->capture_default_str();
  command->add_option("--tokens", flags->tokens, "Of the text, at most")
      ->check(CLI::Range(2u, 1u << 24))
      ->capture_default_str();
  command->add_option("--batch", flags->batch, "Sequences at once where decoding is measured")
      ->check(CLI::Range(1u, 64u))
      ->capture_default_str();
  command->add_option("--minutes", flags->minutes, "About; less text is looked at to keep to it")
      ->check(CLI::Range(0.01, 10000.0))
      ->capture_default_str();
  command->add_option("--state-dir", flags->state_dir,
                      "Whose bases/ has what is calibrated; default: the coordinator's");
  AddThreadsFlag(*command, flags->local);
  AddJsonFlag(*command, flags->local, "all figures");
  OnCommand(*command, exit_code, [flags] { return RunReport(*flags); });
}

}  // namespace efedllm
