#include "model/logits_file.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/status_macros.h"

namespace efedllm {
namespace {

constexpr std::array<char, 8> kMagic = {'e', 'F', 'e', 'd', 'L', 'L', 'M', 'l'};
constexpr uint32_t kVersion = 1;
// Far beyond every vocabulary, and no product of it overflows.
constexpr uint32_t kMostVocab = 1u << 24;

struct Header {
  std::array<char, 8> magic = kMagic;
  uint32_t version = kVersion;
  uint32_t vocab = 0;
  uint64_t rows = 0;
  Sha256Digest text{};
  uint64_t zero = 0;
};
static_assert(sizeof(Header) == 64);

std::string Unfinished(const std::string& path) { return path + ".unfinished"; }

}  // namespace

absl::StatusOr<std::unique_ptr<LogitsWriter>> LogitsWriter::Create(const std::string& path,
                                                                   const TextWindows& text,
                                                                   uint32_t vocab) {
  std::unique_ptr<LogitsWriter> writer(new LogitsWriter(path, text.predictions(), vocab));
  writer->file_ = std::fopen(Unfinished(path).c_str(), "wbe");
  if (writer->file_ == nullptr) return ErrnoStatus(errno, "create", Unfinished(path));
  Header header;
  header.vocab = vocab;
  header.rows = writer->rows_;
  header.text = text.digest();
  if (std::fwrite(&header, sizeof header, 1, writer->file_) != 1) {
    return ErrnoStatus(errno, "write", Unfinished(path));
  }
  return writer;
}

LogitsWriter::~LogitsWriter() {
  if (file_ == nullptr) return;
  std::fclose(file_);
  std::remove(Unfinished(path_).c_str());
}

absl::Status LogitsWriter::Append(absl::Span<const float> logits) {
  CHECK(logits.size() == vocab_ && written_ < rows_);
  ++written_;
  if (std::fwrite(logits.data(), sizeof(float), vocab_, file_) == vocab_) return absl::OkStatus();
  return ErrnoStatus(errno, "write", Unfinished(path_));
}

absl::Status LogitsWriter::Finish() {
  CHECK(written_ == rows_);
  std::FILE* file = std::exchange(file_, nullptr);
  if (std::fclose(file) != 0) {
    const int error = errno;
    std::remove(Unfinished(path_).c_str());
    return ErrnoStatus(error, "write", Unfinished(path_));
  }
  if (std::rename(Unfinished(path_).c_str(), path_.c_str()) != 0) {
    return ErrnoStatus(errno, "rename", Unfinished(path_));
  }
  return absl::OkStatus();
}

bool IsLogitsFile(const std::string& path) {
  const absl::StatusOr<MappedFile> file = MappedFile::Open(path);
  return file.ok() && file->bytes().size() >= kMagic.size() &&
         std::memcmp(file->bytes().data(), kMagic.data(), kMagic.size()) == 0;
}

absl::StatusOr<std::unique_ptr<FileLogits>> FileLogits::Open(const std::string& path,
                                                             const TextWindows& text) {
  ASSIGN_OR_RETURN(MappedFile file, MappedFile::Open(path));
  const absl::Span<const uint8_t> bytes = file.bytes();
  Header header;
  if (bytes.size() < sizeof header) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is not a file of logits: too short"));
  }
  std::memcpy(&header, bytes.data(), sizeof header);
  if (header.magic != kMagic || header.version != kVersion || header.vocab == 0 ||
      header.vocab > kMostVocab) {
    return absl::InvalidArgumentError(
        absl::StrCat(path,
                     " is not a file of logits that this version reads; make one with "
                     "efedllm-ctl eval perplexity --save-logits"));
  }
  const uint64_t row_bytes = uint64_t{header.vocab} * sizeof(float);
  const uint64_t data_bytes = bytes.size() - sizeof header;
  if (data_bytes % row_bytes != 0 || header.rows != data_bytes / row_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is cut off or damaged: make it again"));
  }
  if (header.text != text.digest() || header.rows != text.predictions()) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " has the logits of another text, tokenizer or --context"));
  }
  return std::unique_ptr<FileLogits>(new FileLogits(std::move(file), header.vocab, header.rows));
}

absl::Status FileLogits::Read(uint32_t, absl::Span<const int32_t> tokens, MatrixRef logits) {
  CHECK(tokens.size() <= rows_ - next_ && logits.rows == tokens.size() && logits.cols == vocab_);
  const size_t bytes = logits.span().size() * sizeof(float);
  const uint64_t offset = sizeof(Header) + next_ * vocab_ * sizeof(float);
  std::memcpy(logits.data, file_.bytes().data() + offset, bytes);
  file_.DropPages(offset, bytes);
  next_ += tokens.size();
  return absl::OkStatus();
}

}  // namespace efedllm
