#include "parity/parity_pack.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "absl/status/statusor.h"
#include "common/check.h"

namespace efedllm {
namespace {

// Tests have no way on without it, and a test failure would hide the reason.
template <class T>
T ValueOrDie(absl::StatusOr<T> value) {
  if (!value.ok()) std::fprintf(stderr, "%s\n", value.status().ToString().c_str());
  CHECK(value.ok());
  return *std::move(value);
}

}  // namespace

std::string ParityDir() {
  const char* shared = std::getenv("EFEDLLM_SHARED_DIR");
  const std::string dir =
      shared != nullptr ? std::string(shared) + "/parity" : EFEDLLM_SOURCE_DIR "/../shared/parity";
  return std::filesystem::exists(dir) ? dir : "";
}

std::string SeedlingPath(const std::string& name) {
  return EFEDLLM_SOURCE_DIR "/models/seedling/" + name;
}

nlohmann::json ReadJson(const std::string& path) {
  std::ifstream in(path);
  return nlohmann::json::parse(in);
}

LoadedModel::LoadedModel(const std::string& path, int threads, const std::string& kernels,
                         LocalModelOptions options)
    : compute(ValueOrDie(Compute::Create(threads, kernels))),
      file(ValueOrDie(ModelFile::Open(path))),
      model(ValueOrDie(LocalModel::Create(file, options, compute))) {}

std::vector<std::vector<float>> LoadedModel::Logits(absl::Span<const int32_t> tokens,
                                                    uint32_t chunk) {
  std::vector<std::vector<float>> all;
  const absl::Status status =
      model->Evaluate(tokens, chunk, [&](size_t, absl::Span<const float> logits) {
        all.emplace_back(logits.begin(), logits.end());
      });
  CHECK(status.ok());
  return all;
}

std::vector<int32_t> LoadedModel::Greedy(absl::Span<const int32_t> prompt, size_t steps) {
  const SequenceId sequence{77};
  std::vector<int32_t> next(prompt.begin(), prompt.end()), out;
  uint32_t position = 0;
  while (out.size() < steps) {
    const auto rows = static_cast<uint32_t>(next.size());
    Step step;
    step.spans = {{sequence, position, rows}};
    Matrix logits(rows, model->config().vocab);
    CHECK(model->Forward(step, next, logits.ref()).ok());
    const auto best =
        static_cast<int32_t>(ArgMax(absl::MakeConstSpan(logits.row(rows - 1), logits.cols())));
    out.push_back(best);
    position += rows;
    next = {best};
  }
  Step release;
  release.trims = {{sequence, 0}};
  CHECK(model->Forward(release, {}, {nullptr, 0, model->config().vocab}).ok());
  return out;
}

}  // namespace efedllm
