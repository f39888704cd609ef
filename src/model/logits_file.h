// Logits of a text on disk, so that others can be compared with a model that is no longer there.
//
//   0   char[8]   "eFedLLMl"
//   8   u32       1, the version
//   12  u32       vocabulary
//   16  u64       rows: positions that predict a token
//   24  u8[32]    TextWindows::digest()
//   56  u64       0
//   64  f32[rows][vocabulary]
//
// Little-endian.
#ifndef EFEDLLM_MODEL_LOGITS_FILE_H_
#define EFEDLLM_MODEL_LOGITS_FILE_H_

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/file.h"
#include "model/logits_source.h"

namespace efedllm {

// Writes beside path, and renames when all is there. Not thread-safe.
class LogitsWriter {
 public:
  static absl::StatusOr<std::unique_ptr<LogitsWriter>> Create(const std::string& path,
                                                              const TextWindows& text,
                                                              uint32_t vocab);
  ~LogitsWriter();  // removes what is not finished

  // The next row. ResourceExhausted: the disk is full.
  absl::Status Append(absl::Span<const float> logits);
  // After the last row.
  absl::Status Finish();

 private:
  LogitsWriter(std::string path, uint64_t rows, uint32_t vocab)
      : path_(std::move(path)), rows_(rows), vocab_(vocab) {}

  const std::string path_;
  const uint64_t rows_;
  const uint32_t vocab_;
  std::FILE* file_ = nullptr;
  uint64_t written_ = 0;  // rows
};

// Is this a file of logits, as far as its first bytes say? False also where it can't be read.
bool IsLogitsFile(const std::string& path);

// Reads them back.
class FileLogits final : public LogitsSource {
 public:
  // text: what they must be of. InvalidArgument: not such a file, or cut off; FailedPrecondition:
  // of another text, or another tokenizer.
  static absl::StatusOr<std::unique_ptr<FileLogits>> Open(const std::string& path,
                                                          const TextWindows& text);

  uint32_t vocab() const override { return vocab_; }
  absl::Status Read(uint32_t first, absl::Span<const int32_t> tokens, MatrixRef logits) override;

 private:
  FileLogits(MappedFile file, uint32_t vocab, uint64_t rows)
      : file_(std::move(file)), vocab_(vocab), rows_(rows) {}

  const MappedFile file_;
  const uint32_t vocab_;
  const uint64_t rows_;
  uint64_t next_ = 0;  // row
};

}  // namespace efedllm

#endif  // EFEDLLM_MODEL_LOGITS_FILE_H_
