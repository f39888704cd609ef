#include "faultsim/tiny_model.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/check.h"
#include "common/file.h"
#include "common/random.h"
#include "common/status_macros.h"
#include "coordinator/epoch_builder.h"
#include "model/gguf_writer.h"
#include "text/sampler.h"

namespace efedllm::faultsim {
namespace {

constexpr uint32_t kWidth = 32;
constexpr uint32_t kHeads = 2;
constexpr uint32_t kHeadDim = 16;
constexpr uint32_t kFfn = 48;
constexpr uint32_t kVocab = 64;
constexpr uint32_t kByteTokens = 32;  // what has none is the unknown token

// What a file of it says, and the texts that are views in there.
struct Metadata {
  GgufMetadata values;
  std::vector<std::string> tokens;
};

void AddVocabulary(Metadata& metadata) {
  metadata.tokens = {"<unk>", "<s>", "</s>"};
  std::vector<int64_t> types = {2, 3, 3};
  for (uint32_t i = 0; i < kByteTokens; ++i) {
    metadata.tokens.push_back(absl::StrFormat("<0x%02X>", 'a' + i));
    types.push_back(6);
  }
  while (metadata.tokens.size() < kVocab) {
    metadata.tokens.push_back(absl::StrCat("w", metadata.tokens.size()));
    types.push_back(1);
  }
  metadata.values.insert(
      metadata.values.end(),
      {{"tokenizer.ggml.model", absl::string_view("llama")},
       {"tokenizer.ggml.tokens", MetadataArray{std::vector<absl::string_view>(
                                     metadata.tokens.begin(), metadata.tokens.end())}},
       {"tokenizer.ggml.scores", MetadataArray{std::vector<double>(kVocab, 0.0)}},
       {"tokenizer.ggml.token_type", MetadataArray{std::move(types)}},
       {"tokenizer.ggml.bos_token_id", uint64_t{1}},
       {"tokenizer.ggml.eos_token_id", uint64_t{2}}});
}

std::string ModelBytes() {
  Metadata metadata;
  metadata.values = {{"general.architecture", absl::string_view("llama")},
                     {"general.name", absl::string_view("tiny")},
                     {"llama.block_count", uint64_t{TinyModel::kLayers}},
                     {"llama.context_length", uint64_t{TinyModel::kContext}},
                     {"llama.embedding_length", uint64_t{kWidth}},
                     {"llama.feed_forward_length", uint64_t{kFfn}},
                     {"llama.attention.head_count", uint64_t{kHeads}},
                     {"llama.attention.head_count_kv", uint64_t{1}},
                     {"llama.rope.dimension_count", uint64_t{kHeadDim}},
                     {"llama.attention.layer_norm_rms_epsilon", double{1e-5f}}};
  AddVocabulary(metadata);
  std::vector<GgufTensor> tensors;
  std::string data;
  Random random(20261123);
  const auto tensor = [&](const std::string& name, const std::vector<uint64_t>& shape,
                          float scale) {
    uint64_t values = 1;
    for (const uint64_t extent : shape) values *= extent;
    tensors.push_back({name, /*gguf_type=*/0, shape, values * sizeof(float)});
    for (uint64_t i = 0; i < values; ++i) {
      const auto value = static_cast<float>(random.Uniform() * 2 - 1) * scale;
      data.append(reinterpret_cast<const char*>(&value), sizeof(value));
    }
    static_assert(kWidth * sizeof(float) % kGgufAlignment == 0, "tensors need no padding");
  };
  const uint64_t q = kHeads * kHeadDim;
  tensor("token_embd.weight", {kWidth, kVocab}, 1);
  tensor("output_norm.weight", {kWidth}, 1);
  tensor("output.weight", {kWidth, kVocab}, 1);
  for (uint32_t i = 0; i < TinyModel::kLayers; ++i) {
    const std::string block = absl::StrCat("blk.", i, ".");
    tensor(block + "attn_norm.weight", {kWidth}, 1);
    tensor(block + "attn_q.weight", {kWidth, q}, 1);
    tensor(block + "attn_k.weight", {kWidth, kHeadDim}, 1);
    tensor(block + "attn_v.weight", {kWidth, kHeadDim}, 1);
    tensor(block + "attn_output.weight", {q, kWidth}, 1);
    tensor(block + "ffn_norm.weight", {kWidth}, 1);
    tensor(block + "ffn_gate.weight", {kWidth, kFfn}, 1);
    tensor(block + "ffn_up.weight", {kWidth, kFfn}, 1);
    tensor(block + "ffn_down.weight", {kFfn, kWidth}, 1);
  }
  return GgufHeader(metadata.values, tensors) + data;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TinyModel>> TinyModel::Create(const std::string& dir) {
  std::unique_ptr<TinyModel> model(new TinyModel);
  const std::string path = dir + "/tiny.gguf";
  RETURN_IF_ERROR(WriteFileAtomically(path, ModelBytes(), 0600));
  ASSIGN_OR_RETURN(model->compute_, Compute::Create(0, "auto"));
  ASSIGN_OR_RETURN(model->served_, ServedModel::Load(path, model->compute_));
  ASSIGN_OR_RETURN(model->costs_, ClusterEpochBuilder::LayerCosts(
                                      model->config(), model->served_->file, KvType::kF32));
  model->MakeQuestions();
  return model;
}

StepLimits TinyModel::limits() const {
  StepLimits limits;
  limits.max_tokens = 64;
  limits.max_spans = 16;
  limits.max_position = kContext;
  return limits;
}

const std::vector<StageTensor>& TinyModel::Tensors(LayerRange layers) {
  const uint64_t key = uint64_t{layers.first} << 32 | layers.last;
  const auto known = tensors_.find(key);
  if (known != tensors_.end()) return known->second;
  absl::StatusOr<std::vector<StageTensor>> loaded =
      LoadStageTensors(config(), served_->file, layers);
  CHECK(loaded.ok());
  return tensors_[key] = *std::move(loaded);
}

// Lengths are mostly small, so that a seed is cheap; some end just before, at and behind a page.
void TinyModel::MakeQuestions() {
  constexpr uint32_t kLengths[] = {1, 3, 5, 8, 12, 6, 62, 64, 66, 20, 70, 9, 30, 4, 130, 16};
  Random random(7);
  std::vector<int32_t> shared(70);
  for (int32_t& token : shared) token = static_cast<int32_t>(3 + random.Below(kVocab - 3));
  for (size_t i = 0; i < std::size(kLengths); ++i) {
    GenerationInput& input = questions_.emplace_back();
    for (uint32_t at = 0; at < kLengths[i]; ++at) {
      const bool common = i % 3 == 0 && at + 2 < kLengths[i] && at < shared.size();
      input.prompt.push_back(common ? shared[at]
                                    : static_cast<int32_t>(3 + random.Below(kVocab - 3)));
    }
    input.max_tokens = 3 + static_cast<uint32_t>(random.Below(22));
    input.ignore_eos = true;
    input.sampling.temperature = i % 4 == 1 ? 0.8f : 0.0f;
    input.sampling.seed = i;
    input.cache_prompt = i % 5 != 4;
  }
}

const std::vector<int32_t>& TinyModel::Answer(size_t index) {
  const auto known = answers_.find(index);
  if (known != answers_.end()) return known->second;
  return answers_[index] = ComputeAnswer(questions_[index]);
}

std::vector<int32_t> TinyModel::ComputeAnswer(const GenerationInput& input) {
  StageOptions options;
  options.config = config();
  options.layers = {0, kLayers};
  options.kv_tokens = kContext;
  options.limits = limits();
  options.limits.max_tokens = kContext;
  absl::StatusOr<std::unique_ptr<StageExecutor>> executor =
      StageExecutor::Create(options, Tensors(options.layers), compute_);
  CHECK(executor.ok());
  Sampler sampler(input.sampling, input.prompt);
  std::vector<int32_t> tokens = input.prompt;
  std::vector<int32_t> answer;
  uint32_t computed = 0;
  while (answer.size() < input.max_tokens) {
    Step step;
    step.epoch = Epoch{1};
    step.id = StepId{answer.size() + 1};
    const auto rows = static_cast<uint32_t>(tokens.size()) - computed;
    step.spans.push_back({SequenceId{1}, computed, rows});
    Matrix hidden(rows, config().d_model);
    CHECK(served_->embedding.Lookup(absl::MakeSpan(tokens).subspan(computed), hidden.ref()).ok());
    CHECK((*executor)->Run(step, hidden.ref()).ok());
    computed += rows;
    Matrix last(1, config().d_model);
    std::copy_n(hidden.row(rows - 1), config().d_model, last.row(0));
    Matrix logits(1, config().vocab);
    served_->head->Logits(last.ref(), logits.ref());
    const int32_t token = sampler.Sample({logits.row(0), logits.cols()});
    answer.push_back(token);
    tokens.push_back(token);
  }
  return answer;
}

}  // namespace efedllm::faultsim
