#include "model/boundary_rows.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/file.h"
#include "common/status_macros.h"
#include "model/stage_executor.h"
#include "model/tensor_loader.h"

namespace efedllm {
namespace {

constexpr uint32_t kMaxSpans = 64;
constexpr uint32_t kStepRows = 512;

// Maps that many bytes of a new file whose blocks are all there: a write to the mapping must not
// find the disk full.
absl::StatusOr<void*> MapScratch(const std::string& folder, size_t bytes) {
  std::string path = absl::StrCat(folder, "/efedllm-XXXXXX");
  const int fd = mkostemp(path.data(), O_CLOEXEC);
  if (fd < 0) return ErrnoStatus(errno, "cannot create a scratch file in", folder);
  unlink(path.c_str());
  const int error = posix_fallocate(fd, 0, static_cast<off_t>(bytes));
  void* data = MAP_FAILED;
  if (error == 0) data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  const int map_error = errno;
  close(fd);
  if (error != 0) return ErrnoStatus(error, "cannot make room for activations in", folder);
  if (data == MAP_FAILED) return ErrnoStatus(map_error, "cannot map a scratch file in", folder);
  return data;
}

absl::StatusOr<std::unique_ptr<StageExecutor>> LoadLayer(const ModelFile& file,
                                                         const ModelConfig& config, uint32_t layer,
                                                         uint32_t longest, Compute& compute) {
  StageOptions options;
  options.config = config;
  options.layers = {layer, layer + 1};
  // One step's sequences and what a long one had before; each may leave most of a page unused.
  options.kv_tokens = longest + kStepRows + kMaxSpans * KvCache::kPagePositions;
  options.limits.max_tokens = kStepRows;
  options.limits.max_spans = kMaxSpans;
  options.limits.max_position = config.context;
  ASSIGN_OR_RETURN(const std::vector<StageTensor> tensors,
                   LoadStageTensors(config, file, options.layers, {.team = compute.team.get()}));
  return StageExecutor::Create(options, tensors, compute);
}

// The rows of as many sequences as a step takes, and of long ones a part.
absl::Status RunSequences(StageExecutor& stage, absl::Span<const uint32_t> lengths, MatrixRef batch,
                          const std::function<bool()>& cancelled) {
  size_t row = 0, ended = 0;
  uint32_t done = 0;  // of the first sequence that isn't done
  for (size_t i = 0; i < lengths.size();) {
    if (cancelled && cancelled()) return absl::CancelledError("the calibration was cancelled");
    Step step;
    step.forget_others = row == 0;
    for (; ended < i; ++ended) step.trims.push_back({SequenceId{ended + 1}, 0});
    uint32_t room = kStepRows;
    while (i < lengths.size() && room > 0 && step.spans.size() < kMaxSpans) {
      const uint32_t tokens = std::min(room, lengths[i] - done);
      step.spans.push_back({SequenceId{i + 1}, done, tokens});
      room -= tokens;
      done += tokens;
      if (done < lengths[i]) break;
      done = 0;
      ++i;
    }
    RETURN_IF_ERROR(stage.Run(step, {batch.row(row), step.tokens(), batch.cols}));
    row += step.tokens();
  }
  CHECK(row == batch.rows);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ScratchMatrices> ScratchMatrices::Create(const std::string& folder, size_t count,
                                                        size_t rows, size_t cols) {
  CHECK(count > 0 && rows > 0 && cols > 0);
  ASSIGN_OR_RETURN(void* const data, MapScratch(folder, count * rows * cols * sizeof(float)));
  return ScratchMatrices(static_cast<float*>(data), count, rows, cols);
}

ScratchMatrices::ScratchMatrices(ScratchMatrices&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      count_(other.count_),
      rows_(other.rows_),
      cols_(other.cols_) {}

ScratchMatrices& ScratchMatrices::operator=(ScratchMatrices&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(count_, other.count_);
  std::swap(rows_, other.rows_);
  std::swap(cols_, other.cols_);
  return *this;
}

ScratchMatrices::~ScratchMatrices() {
  if (data_ != nullptr) munmap(data_, count_ * rows_ * cols_ * sizeof(float));
}

MatrixRef ScratchMatrices::at(size_t number) const {
  CHECK(number < count_);
  return {data_ + number * rows_ * cols_, rows_, cols_};
}

absl::Status RunOneLayer(const ModelFile& file, const ModelConfig& config, uint32_t layer,
                         absl::Span<const uint32_t> lengths, absl::Span<const MatrixRef> batches,
                         Compute& compute, const std::function<bool()>& cancelled) {
  ASSIGN_OR_RETURN(
      const std::unique_ptr<StageExecutor> stage,
      LoadLayer(file, config, layer, *std::max_element(lengths.begin(), lengths.end()), compute));
  for (const MatrixRef batch : batches) {
    RETURN_IF_ERROR(RunSequences(*stage, lengths, batch, cancelled));
  }
  return absl::OkStatus();
}

}  // namespace efedllm
