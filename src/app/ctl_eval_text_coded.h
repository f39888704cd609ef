// eval kl --codec: what coding a model's boundaries costs, beside eval kl --reference.
#ifndef EFEDLLM_APP_CTL_EVAL_TEXT_CODED_H_
#define EFEDLLM_APP_CTL_EVAL_TEXT_CODED_H_

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "app/local_run.h"
#include "model/logits_source.h"
#include "text/tokenizer.h"

namespace efedllm {

struct CodedTextFlags {
  std::string codec;
  std::string state_dir;  // of the bases; empty: the coordinator's
  uint32_t stages = 2;
  uint32_t batch = 0;  // 0: frames of whole prompts
};

void AddCodedTextFlags(CLI::App& command, CodedTextFlags& flags);

// context: tokens in a window; 0: the model's, or less.
absl::Status RunCodedKl(const LocalFlags& local, const std::string& text_path, uint32_t context,
                        const CodedTextFlags& flags);

// A text's windows for a model: BOS before each where the model adds one.
absl::StatusOr<TextWindows> CutForModel(const std::string& text, const Tokenizer& tokenizer,
                                        uint32_t length);

// The same; but documents as codec calibrate takes them (coordinator/boundary_calibration.h) are
// read as such: each chat is a window, as the model's template has it.
absl::StatusOr<TextWindows> CutDocuments(const std::string& text, const ModelFile& file,
                                         uint32_t length);

// What decoding `batch` windows at a time takes of a text: as many windows of one length, at most
// `length`, as fill all batches. InvalidArgument: too little text.
absl::StatusOr<TextWindows> CutForBatches(const TextWindows& text, int32_t bos, uint32_t length,
                                          uint32_t batch);

}  // namespace efedllm

#endif  // EFEDLLM_APP_CTL_EVAL_TEXT_CODED_H_
