// The parity pack and the bundled model, as tests use them.
#ifndef EFEDLLM_TESTS_PARITY_PARITY_PACK_H_
#define EFEDLLM_TESTS_PARITY_PARITY_PACK_H_

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "layers/compute.h"
#include "model/local_model.h"
#include "model/model_file.h"

namespace efedllm {

// "" where the pack is not there; tests that need it then skip.
std::string ParityDir();
// models/seedling/<name>, which ships.
std::string SeedlingPath(const std::string& name);

nlohmann::json ReadJson(const std::string& path);

// A model with all that it borrows. Dies with a test failure if it can't be loaded.
struct LoadedModel {
  LoadedModel(const std::string& path, int threads, const std::string& kernels,
              LocalModelOptions options = {});

  // Logits of every position of one sequence.
  std::vector<std::vector<float>> Logits(absl::Span<const int32_t> tokens, uint32_t chunk = 0);
  // The most likely token after each prefix, steps times; end-of-text is not a stop.
  std::vector<int32_t> Greedy(absl::Span<const int32_t> prompt, size_t steps);

  Compute compute;
  ModelFile file;
  std::unique_ptr<LocalModel> model;
};

}  // namespace efedllm

#endif  // EFEDLLM_TESTS_PARITY_PARITY_PACK_H_
