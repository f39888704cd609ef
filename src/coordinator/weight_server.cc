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
  Stream(WeightServer& server, Offered offered, uint64_t first_byte)
      : server_(server), offered_(std::move(offered)), offset_(first_byte) {
    OnWriteDone(true);
  }

  void OnWriteDone(bool ok) override {
    if (!ok) return Finish(grpc::Status(grpc::StatusCode::CANCELLED, "the worker is gone"));
    if (offset_ >= offered_.size_bytes()) {
      // Nobody else is assigned this tensor, so that its pages can go.
      if (offered_.tensor != nullptr) server_.file_.DropPages(*offered_.tensor);
      return Finish(grpc::Status::OK);
    }
    const uint64_t size = std::min(kChunkBytes, offered_.size_bytes() - offset_);
    const absl::Span<const uint8_t> bytes =
        offered_.tensor != nullptr
            ? offered_.tensor->Bytes(offset_, size, scratch_)
            : absl::MakeConstSpan(reinterpret_cast<const uint8_t*>(offered_.basis->data()),
                                  offered_.basis->size())
                  .subspan(offset_, size);
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
  const Offered offered_;
  uint64_t offset_;
  v1::TensorChunk chunk_;
  std::vector<uint8_t> scratch_;
};

void WeightServer::Offer(const std::vector<TensorSpec>& tensors) {
  absl::MutexLock lock(&mu_);
  for (const TensorSpec& spec : tensors) {
    const ModelTensor* tensor = file_.FindTensor(spec.name);
    CHECK(tensor != nullptr && tensor->size_bytes() >= spec.bytes());
    offered_[IdOf(spec)] = {tensor, nullptr};
  }
}

TensorSpec WeightServer::OfferBasis(uint32_t boundary, std::string bytes) {
  CHECK(!bytes.empty() && bytes.size() % sizeof(float) == 0);
  TensorSpec spec;
  spec.name = absl::StrCat("boundary.", boundary, ".basis");
  spec.cols = bytes.size() / sizeof(float);
  for (size_t at = 0; at < bytes.size(); at += kChunkBytes) {
    const size_t size = std::min<size_t>(kChunkBytes, bytes.size() - at);
    spec.chunks.push_back(Sha256({reinterpret_cast<const uint8_t*>(bytes.data()) + at, size}));
  }
  absl::MutexLock lock(&mu_);
  offered_[IdOf(spec)] = {nullptr, std::make_shared<const std::string>(std::move(bytes))};
  return spec;
}

absl::StatusOr<WeightServer::Offered> WeightServer::Begin(const v1::FetchTensorRequest& request) {
  absl::MutexLock lock(&mu_);
  const auto found = offered_.find(request.tensor_id());
  if (found == offered_.end()) {
    return absl::NotFoundError("the coordinator's model has no tensor of this id");
  }
  const uint64_t chunks = (found->second.size_bytes() + kChunkBytes - 1) / kChunkBytes;
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
  absl::StatusOr<Offered> offered = Begin(request);
  if (!offered.ok()) return Refuse(offered.status());
  return new Stream(*this, *std::move(offered), request.first_chunk() * kChunkBytes);
}

grpc::ServerWriteReactor<v1::TensorChunk>* WeightServer::Refuse(const absl::Status& why) {
  return new Refusal(why);
}

}  // namespace efedllm
