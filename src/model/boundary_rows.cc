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
#include "model/stage_replay.h"
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
                                                         absl::Span<const uint32_t> lengths,
                                                         Compute& compute) {
  StageOptions options;
  options.config = config;
  options.layers = {layer, layer + 1};
  options.limits.max_tokens = kStepRows;
  options.limits.max_spans = kMaxSpans;
  options.kv_tokens = KvTokensOfSequences(lengths, options.limits);
  options.limits.max_position = config.context;
  ASSIGN_OR_RETURN(const std::vector<StageTensor> tensors,
                   LoadStageTensors(config, file, options.layers, {.team = compute.team.get()}));
  return StageExecutor::Create(options, tensors, compute);
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
  ASSIGN_OR_RETURN(const std::unique_ptr<StageExecutor> stage,
                   LoadLayer(file, config, layer, lengths, compute));
  const auto before_step = [&]() -> absl::Status {
    return cancelled && cancelled() ? absl::CancelledError("the calibration was cancelled")
                                    : absl::OkStatus();
  };
  for (const MatrixRef batch : batches) {
    RETURN_IF_ERROR(RunSequences(*stage, lengths, batch, before_step));
  }
  return absl::OkStatus();
}

}  // namespace efedllm
