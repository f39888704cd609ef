#include "coordinator/weight_server.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "wire/status_wire.h"

namespace efedllm {
namespace {

std::string IdOf(const TensorSpec& spec) {
  const Sha256Digest id = spec.id();
  return std::string(reinterpret_cast<const char*>(id.data()), id.size());
}

class Refusal final : public grpc::ServerWriteReactor<v1::TensorChunk> {
 public:
  explicit Refusal(const absl::Status& why) { Finish(ToGrpc(why)); }
  void OnDone() override { delete this; }
};

}  // namespace

// Chunks of one tensor, one at a time.
class WeightServer::Stream final : public grpc::ServerWriteReactor<v1::TensorChunk> {
 public:
  Stream(WeightServer& server, const ModelTensor& tensor, uint64_t first_byte)
      : server_(server), tensor_(tensor), offset_(first_byte) {
    OnWriteDone(true);
  }

  void OnWriteDone(bool ok) override {
    if (!ok) return Finish(grpc::Status(grpc::StatusCode::CANCELLED, "the worker is gone"));
    if (offset_ >= tensor_.size_bytes()) {
      // Nobody else is assigned this tensor, so that its pages can go.
      server_.file_.DropPages(tensor_);
      return Finish(grpc::Status::OK);
    }
    const absl::Span<const uint8_t> bytes =
        tensor_.Bytes(offset_, std::min(kChunkBytes, tensor_.size_bytes() - offset_), scratch_);
    chunk_.set_data(bytes.data(), bytes.size());
    offset_ += bytes.size();
    StartWrite(&chunk_);
  }
  void OnDone() override {
    server_.Finished();
    delete this;
  }

 private:
  WeightServer& server_;
  const ModelTensor& tensor_;
  uint64_t offset_;
  v1::TensorChunk chunk_;
  std::vector<uint8_t> scratch_;
};

void WeightServer::Offer(const std::vector<TensorSpec>& tensors) {
  absl::MutexLock lock(&mu_);
  for (const TensorSpec& spec : tensors) {
    const ModelTensor* tensor = file_.FindTensor(spec.name);
    CHECK(tensor != nullptr && tensor->size_bytes() >= spec.bytes());
    offered_[IdOf(spec)] = tensor;
  }
}

absl::StatusOr<const ModelTensor*> WeightServer::Begin(const v1::FetchTensorRequest& request) {
  absl::MutexLock lock(&mu_);
  const auto found = offered_.find(request.tensor_id());
  if (found == offered_.end()) {
    return absl::NotFoundError("the coordinator's model has no tensor of this id");
  }
  const uint64_t chunks = (found->second->size_bytes() + kChunkBytes - 1) / kChunkBytes;
  if (request.first_chunk() >= chunks) {
    return absl::InvalidArgumentError(
        absl::StrCat("chunk ", request.first_chunk(), " of a tensor of ", chunks, " chunks"));
  }
  if (streams_ >= max_streams_) {
    return absl::ResourceExhaustedError("the coordinator sends to many workers; try again soon");
  }
  ++streams_;
  return found->second;
}

void WeightServer::Finished() {
  absl::MutexLock lock(&mu_);
  --streams_;
}

grpc::ServerWriteReactor<v1::TensorChunk>* WeightServer::Fetch(
    const v1::FetchTensorRequest& request) {
  const absl::StatusOr<const ModelTensor*> tensor = Begin(request);
  if (!tensor.ok()) return Refuse(tensor.status());
  return new Stream(*this, **tensor, request.first_chunk() * kChunkBytes);
}

grpc::ServerWriteReactor<v1::TensorChunk>* WeightServer::Refuse(const absl::Status& why) {
  return new Refusal(why);
}

}  // namespace efedllm
