// What a model file holds, at a glance: for tables and for `efedllm-ctl model inspect`. Of any file
// that parses, whether it can be run or not.
#ifndef EFEDLLM_MODEL_MODEL_SUMMARY_H_
#define EFEDLLM_MODEL_MODEL_SUMMARY_H_

#include <cstdint>
#include <string>
#include <vector>

#include "model/model_file.h"

namespace efedllm {

// All tensors of one type.
struct TypeSummary {
  std::string type;        // GGUF's name
  bool supported = false;  // that we can compute with it
  uint64_t tensors = 0;
  uint64_t parameters = 0;
  uint64_t bytes = 0;  // 0 where the type is unknown to us
};

struct ModelSummary {
  std::string architecture;  // general.architecture, printable; "" where it isn't there
  std::string name;          // general.name, printable; may be ""
  std::string quantization;  // "Q4_K_M": as the file calls the mixture, else the type of most bytes
  uint64_t parameters = 0;   // values of all tensors
  uint64_t bytes = 0;        // of all tensors
  std::vector<TypeSummary> types;  // by bytes, most first

  // "llama 1.1B Q8_0".
  std::string title() const;
};

ModelSummary SummarizeModel(const ModelFile& file);

// "1.10 B", "5.24 M".
std::string FormatParameters(uint64_t parameters);

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_MODEL_SUMMARY_H_
