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
#include "faultsim/gguf_writer.h"
#include "text/sampler.h"

namespace efedllm::faultsim {
namespace {

constexpr uint32_t kWidth = 32;
constexpr uint32_t kHeads = 2;
constexpr uint32_t kHeadDim = 16;
constexpr uint32_t kFfn = 48;
constexpr uint32_t kVocab = 64;
constexpr uint32_t kByteTokens = 32;  // what has none is the unknown token

void WriteVocabulary(GgufWriter& gguf) {
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>"};
  std::vector<int32_t> types = {2, 3, 3};
  for (uint32_t i = 0; i < kByteTokens; ++i) {
    tokens.push_back(absl::StrFormat("<0x%02X>", 'a' + i));
    types.push_back(6);
  }
  while (tokens.size() < kVocab) {
    tokens.push_back(absl::StrCat("w", tokens.size()));
    types.push_back(1);
  }
  gguf.String("tokenizer.ggml.model", "llama");
  gguf.Strings("tokenizer.ggml.tokens", tokens);
  gguf.Floats("tokenizer.ggml.scores", std::vector<float>(kVocab, 0.0f));
  gguf.Ints("tokenizer.ggml.token_type", types);
  gguf.Uint("tokenizer.ggml.bos_token_id", 1);
  gguf.Uint("tokenizer.ggml.eos_token_id", 2);
}

std::string ModelBytes() {
  GgufWriter gguf;
  gguf.String("general.architecture", "llama");
  gguf.String("general.name", "tiny");
  gguf.Uint("llama.block_count", TinyModel::kLayers);
  gguf.Uint("llama.context_length", TinyModel::kContext);
  gguf.Uint("llama.embedding_length", kWidth);
  gguf.Uint("llama.feed_forward_length", kFfn);
  gguf.Uint("llama.attention.head_count", kHeads);
  gguf.Uint("llama.attention.head_count_kv", 1);
  gguf.Uint("llama.rope.dimension_count", kHeadDim);
  gguf.Float("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  WriteVocabulary(gguf);
  Random random(20261123);
  const auto tensor = [&](const std::string& name, const std::vector<uint64_t>& shape,
                          float scale) {
    uint64_t values = 1;
    for (const uint64_t extent : shape) values *= extent;
    std::vector<float> data(values);
    for (float& value : data) value = static_cast<float>(random.Uniform() * 2 - 1) * scale;
    gguf.Tensor(name, shape, data);
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
  return gguf.Build();
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
