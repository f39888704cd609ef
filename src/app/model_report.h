// All that `efedllm-ctl model inspect` says of a model file: what it is, what it takes, what will
// run how, and what can't be run.
#ifndef EFEDLLM_APP_MODEL_REPORT_H_
#define EFEDLLM_APP_MODEL_REPORT_H_

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cluster/model_config.h"
#include "model/model_file.h"
#include "model/model_summary.h"
#include "tensor/kv_type.h"

namespace efedllm {

struct KvReport {
  std::string type;
  uint64_t bytes_per_token = 0;  // of all layers; 0: the heads' size doesn't allow this type
};

struct TokenizerReport {
  std::string model;  // tokenizer.ggml.model: "llama" (SentencePiece), "gpt2" (byte-level BPE)
  std::string pre;    // tokenizer.ggml.pre, the pre-tokenizer; may be ""
  int32_t tokens = 0;
  int32_t bos = -1, eos = -1;  // -1: none
};

struct ModelReport {
  std::string path;
  std::vector<std::string> parts;  // paths of the files
  uint64_t file_bytes = 0;
  ModelSummary summary;
  std::optional<ModelConfig> config;         // none: it can't be run
  std::optional<TokenizerReport> tokenizer;  // none: texts can't be tokenized
  std::string template_text;                 // empty: none
  std::string template_family;               // "chatml" ..., "interpreted"; empty: no chat
  bool template_is_interpreted = false;      // the model's own template runs, not its family's
  std::vector<KvReport> kv;                  // empty without config
  uint64_t packed_bytes = 0;  // weights of all layers and the head in the kernels' form; 0: unknown
  uint64_t embedding_bytes = 0;       // that stay in the mapped file
  std::string kernels;                // the table chosen on this CPU
  std::vector<std::string> problems;  // in words; empty: everything runs
};

ModelReport MakeModelReport(const std::string& path, const ModelFile& file);

// How weights of this type meet activations.
std::string HowItRuns(const TypeSummary& type);

nlohmann::json ModelReportJson(const ModelReport& report, const ModelFile& file);

}  // namespace efedllm

#endif  // EFEDLLM_APP_MODEL_REPORT_H_
