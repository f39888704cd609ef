#include "app/ctl_codec.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "app/coord_options.h"
#include "app/ctl_codec_parts.h"
#include "app/daemon.h"
#include "app/local_run.h"
#include "app/progress_line.h"
#include "app/text_input.h"
#include "common/status_macros.h"
#include "coordinator/basis_store.h"
#include "coordinator/boundary_calibration.h"
#include "model/model_file.h"
#include "svd/codec_policy.h"

namespace efedllm {
namespace {

struct CalibrateFlags {
  LocalFlags local;
  std::string text;
  std::vector<uint32_t> boundaries;
  uint32_t tokens = 0;
  std::string state_dir;
  bool again = false;
};

// Share of the energy in the first n directions.
double EnergyIn(const std::vector<float>& spectrum, size_t n) {
  double sum = 0, first = 0;
  for (size_t i = 0; i < spectrum.size(); ++i) {
    sum += double{spectrum[i]};
    if (i < n) first += double{spectrum[i]};
  }
  return sum > 0 ? first / sum : 0;
}

// What a level is expected to take if all of these boundaries are edges.
double BytesAt(CodecLevel level, const BoundaryBasis& basis, size_t hops) {
  return ExpectedRowBytes(SettingFor(level, CodecId::kKlt, basis, hops), basis.d_model, &basis);
}

void PrintTable(const Calibration& calibration, size_t hops) {
  absl::PrintF("%-8s %-23s  %-23s %7s  %-17s  %s\n", "", "ENERGY IN 1, 8, 32", "... LESS MASSIVE",
               "", "KL AT STEP 1/8", "BYTES A TOKEN (OF F16)");
  absl::PrintF("%-8s %-23s  %-23s %7s  %8s %8s  %13s %13s\n", "BOUNDARY", "DIRECTIONS",
               "DIMENSIONS AND MEAN", "MASSIVE", "SCALAR", "KLT", "TRANSPARENT", "BALANCED");
  const auto energies = [](const std::vector<float>& spectrum) {
    return absl::StrFormat("%5.1f %% %5.1f %% %5.1f %%", 100 * EnergyIn(spectrum, 1),
                           100 * EnergyIn(spectrum, 8), 100 * EnergyIn(spectrum, 32));
  };
  for (const std::shared_ptr<const BoundaryBasis>& basis : calibration.bases) {
    const auto bytes = [&](CodecLevel level) {
      const double n = BytesAt(level, *basis, hops);
      return absl::StrFormat("%5.0f (%4.1f %%)", n, 100 * n / (2.0 * basis->d_model));
    };
    absl::PrintF("%8d %-23s  %-23s %7d  %8.4f %8.4f  %13s %13s\n", basis->boundary,
                 energies(basis->spectrum_with_massive), energies(basis->spectrum),
                 basis->massive.size(), double{basis->scalar.kl[0]}, double{basis->klt.kl[0]},
                 bytes(CodecLevel::kTransparent), bytes(CodecLevel::kBalanced));
  }
}

nlohmann::json ToJson(const Calibration& calibration, size_t hops, const std::string& folder) {
  nlohmann::json boundaries = nlohmann::json::array();
  for (const std::shared_ptr<const BoundaryBasis>& basis : calibration.bases) {
    const auto energies = [](const std::vector<float>& spectrum) {
      return nlohmann::json{{"1", EnergyIn(spectrum, 1)},
                            {"8", EnergyIn(spectrum, 8)},
                            {"32", EnergyIn(spectrum, 32)}};
    };
    boundaries.push_back({{"boundary", basis->boundary},
                          {"massive_dimensions", basis->massive},
                          {"energy_with_massive", energies(basis->spectrum_with_massive)},
                          {"energy", energies(basis->spectrum)},
                          {"kl_steps", kMeasuredSteps},
                          {"scalar_kl", basis->scalar.kl},
                          {"klt_kl", basis->klt.kl},
                          {"f16_bytes", 2 * basis->d_model},
                          {"transparent_bytes", BytesAt(CodecLevel::kTransparent, *basis, hops)},
                          {"balanced_bytes", BytesAt(CodecLevel::kBalanced, *basis, hops)},
                          {"id", ToHex(basis->id())}});
  }
  return {{"boundaries", boundaries},
          {"hops", hops},
          {"from_store", calibration.from_store},
          {"tokens", calibration.tokens},
          {"metric_tokens", calibration.metric_tokens},
          {"divergence_tokens", calibration.divergence_tokens},
          {"seconds", calibration.seconds},
          {"folder", folder}};
}

void PrintFacts(const Calibration& calibration, size_t hops, const std::string& folder) {
  if (calibration.tokens > 0) {
    absl::PrintF(
        "\n%.1f s: spectra of %d tokens, sensitivity %s, KL of %d tokens that neither saw.\n",
        calibration.seconds, calibration.tokens,
        calibration.metric_tokens > 0 ? absl::StrCat("of ", calibration.metric_tokens)
                                      : "unknown for this model",
        calibration.divergence_tokens);
  }
  if (calibration.from_store > 0) {
    absl::PrintF("%d boundaries were there already (--again calibrates them anew).\n",
                 calibration.from_store);
  }
  absl::PrintF(
      "Bytes are what is expected of the KLT codec in a plan whose budget is shared by %d %s.\n"
      "Kept in %s\n",
      hops, hops == 1 ? "hop" : "hops", folder);
}

absl::Status RunCalibrate(const CalibrateFlags& flags) {
  ASSIGN_OR_RETURN(const ModelFile file, ModelFile::Open(flags.local.model));
  std::string state_dir = flags.state_dir;
  if (state_dir.empty()) {
    ASSIGN_OR_RETURN(state_dir, DefaultStateDir(ThisUser(), kCoordinatorState));
  }
  const BasisStore store(BasisFolder(state_dir));
  CalibrationOptions options;
  options.boundaries = flags.boundaries;
  options.tokens = flags.tokens;
  options.threads = flags.local.threads;
  options.kernels = flags.local.kernels;
  if (!flags.text.empty()) {
    ASSIGN_OR_RETURN(options.text, ReadText(flags.text));
  }
  // From now on the coordinator and the other commands take this calibration.
  const bool own = !options.text.empty() || options.tokens != 0;
  RETURN_IF_ERROR(store.Choose(ModelDigest(file),
                               own ? std::optional(CalibrationDigest(options)) : std::nullopt));
  absl::StatusOr<Calibration> calibration = absl::UnknownError("");
  {
    const ProgressLine progress;
    options.progress = [&progress](double share, absl::string_view what) {
      progress.Show(share, what);
    };
    if (flags.again) RETURN_IF_ERROR(store.Forget(ModelDigest(file), CalibrationDigest(options)));
    calibration = LoadOrCalibrate(file, options, store);
  }
  if (!calibration.ok()) return file.About(calibration.status());
  const size_t hops = std::max<size_t>(1, flags.boundaries.size());
  if (flags.local.json) {
    std::printf("%s\n", ToJson(*calibration, hops, store.folder()).dump().c_str());
  } else {
    PrintTable(*calibration, hops);
    PrintFacts(*calibration, hops, store.folder());
  }
  return absl::OkStatus();
}

void AddCalibrateCommand(CLI::App& codec, int& exit_code) {
  auto flags = std::make_shared<CalibrateFlags>();
  CLI::App* command = codec.add_subcommand(
      "calibrate",
      "Learn what stands at the boundaries between a model's layers, so that it can be sent in\n"
      "fewer bytes: massive dimensions, mean, directions by variance and by how much the model\n"
      "minds errors in them, and what coding them costs. The coordinator does this by itself at\n"
      "its first start; with --text it uses what was learned from your own text from its next\n"
      "start on. Seconds for small models, minutes for a billion parameters.");
  command->footer(
      "Example: efedllm-ctl codec calibrate --model models/seedling/seedling-q8_0.gguf");
  command
      ->add_option("--model", flags->local.model,
                   "GGUF file (any part of a split one), or a Hugging Face folder")
      ->required();
  command->add_option("--text", flags->text,
                      "File with text like what will be served, a few thousand tokens or more;\n"
                      "- reads standard input. Without it a built-in sample is taken");
  command
      ->add_option("--boundaries", flags->boundaries,
                   "Numbers of layers with commas between them: the places behind so many layers\n"
                   "each. Without it all are calibrated")
      ->delimiter(',');
  command
      ->add_option("--tokens", flags->tokens,
                   "Tokens of the text to look at; 0: as many as suit the model's size")
      ->check(CLI::Range(0u, 1u << 20))
      ->capture_default_str();
  command->add_option("--state-dir", flags->state_dir,
                      "The coordinator's state folder, in which the result is kept; default\n"
                      "/var/lib/efedllm/coordinator for root, else\n"
                      "~/.local/state/efedllm/coordinator");
  command->add_flag("--again", flags->again, "Calibrate also what is there already");
  command
      ->add_option("--kernels", flags->local.kernels,
                   "auto, or a set that this CPU runs: scalar, avx2 ...")
      ->capture_default_str();
  AddThreadsFlag(*command, flags->local);
  AddJsonFlag(*command, flags->local,
              "{\"boundaries\": [{\"boundary\", \"massive_dimensions\", \"energy\",\n"
              "\"klt_kl\", \"transparent_bytes\", ...}], \"tokens\", \"seconds\", ...}");
  OnCommand(*command, exit_code, [flags] { return RunCalibrate(*flags); });
}

}  // namespace

void AddCodecCommand(CLI::App& root, int& exit_code) {
  CLI::App* codec =
      root.add_subcommand("codec", "Compression of the activations that travel between nodes");
  codec->require_subcommand(1);
  AddCalibrateCommand(*codec, exit_code);
  AddCodecReportCommand(*codec, exit_code);
}

}  // namespace efedllm
