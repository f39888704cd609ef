#include "worker/weight_fetcher.h"

#include <grpcpp/client_context.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <new>
#include <system_error>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "wire/status_wire.h"

namespace efedllm {
namespace {

constexpr size_t kParallelFetches =
    2;                          // one is on the network while the other is hashed and packed
constexpr int kMaxDamaged = 3;  // arrivals of one chunk
constexpr int kMaxBroken = 5;   // calls in a row that brought nothing
constexpr absl::Duration kRetryWait = absl::Milliseconds(500);
// A call that brings less than this is stuck: the next one goes on where it was.
constexpr absl::Duration kLeastCallTime = absl::Seconds(60);
constexpr absl::Duration kMostTimePerChunk = absl::Seconds(20);

absl::Span<const uint8_t> Bytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

bool WorthRetrying(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsDeadlineExceeded(status) ||
         absl::IsAborted(status) || absl::IsResourceExhausted(status);
}

}  // namespace

void WeightFetcher::Cancel() { End(absl::CancelledError("the fetch was cancelled")); }

void WeightFetcher::End(const absl::Status& why) {
  absl::MutexLock lock(&mu_);
  if (!ended_.ok()) return;
  ended_ = why;
  for (grpc::ClientContext* call : calls_) call->TryCancel();
}

absl::Status WeightFetcher::ended() const {
  absl::MutexLock lock(&mu_);
  return ended_;
}

absl::Status WeightFetcher::AwaitRetry(absl::Duration wait) {
  absl::MutexLock lock(&mu_);
  mu_.AwaitWithTimeout(absl::Condition(this, &WeightFetcher::HasEnded), wait);
  return ended_;
}

absl::Status WeightFetcher::ReadChunks(grpc::ClientReaderInterface<v1::TensorChunk>& reader,
                                       const TensorSpec& spec, uint64_t& next) {
  v1::TensorChunk chunk;
  while (next < spec.chunk_count() && reader.Read(&chunk)) {
    const absl::Status added = cache_.AddChunk(spec, next, Bytes(chunk.data()));
    // What is not the peer's fault is the disk's: asking again does not help.
    if (!added.ok()) return absl::IsDataLoss(added) ? added : absl::InternalError(added.message());
    ++next;
    progress_.AddFetched(chunk.data().size());
  }
  return absl::OkStatus();
}

absl::Status WeightFetcher::Stream(const TensorSpec& spec, uint64_t& next) {
  v1::FetchTensorRequest request;
  const Sha256Digest id = spec.id();
  request.set_tensor_id(id.data(), id.size());
  request.set_first_chunk(next);
  grpc::ClientContext context;
  transport_.Prepare(context);
  const auto chunks = static_cast<double>(spec.chunk_count() - next);
  context.set_deadline(
      absl::ToChronoTime(absl::Now() + kLeastCallTime + chunks * kMostTimePerChunk));
  {
    absl::MutexLock lock(&mu_);
    RETURN_IF_ERROR(ended_);
    calls_.insert(&context);
  }
  const auto reader = stub_.FetchTensor(&context, request);
  const absl::Status read = ReadChunks(*reader, spec, next);
  // Otherwise the call has ended by itself, and its status says why.
  const bool end_it = !read.ok() || next == spec.chunk_count();
  if (end_it) context.TryCancel();
  const absl::Status call = FromGrpc(reader->Finish());
  {
    absl::MutexLock lock(&mu_);
    calls_.erase(&context);
    RETURN_IF_ERROR(ended_);
  }
  if (end_it) return read;
  if (!call.ok()) return call;
  return absl::UnavailableError("the coordinator ended the stream early");
}

absl::StatusOr<std::shared_ptr<const PackedTensor>> WeightFetcher::Get(const TensorSpec& spec) {
  auto cached = cache_.Get(spec);
  if (cached.ok()) progress_.AddHeld(spec.bytes());
  if (!absl::IsNotFound(cached.status())) return cached;

  ASSIGN_OR_RETURN(uint64_t next, cache_.ChunksHeld(spec));
  progress_.AddHeld(std::min(next * kChunkBytes, spec.bytes()));
  int damaged = 0;
  int broken = 0;
  while (next < spec.chunk_count()) {
    const uint64_t before = next;
    const absl::Status status = Stream(spec, next);
    if (next > before) damaged = broken = 0;
    if (status.ok()) break;
    spdlog::warn("tensor {}: {}", Printable(spec.name), std::string(status.message()));
    if (absl::IsDataLoss(status)) {
      if (++damaged >= kMaxDamaged) {
        return absl::DataLossError(absl::StrCat(status.message(), ", ", damaged,
                                                " times; was the model file changed while the "
                                                "coordinator runs?"));
      }
      continue;
    }
    if (!WorthRetrying(status) || ++broken >= kMaxBroken) return status;
    RETURN_IF_ERROR(AwaitRetry(kRetryWait * broken));
  }
  return cache_.Finish(spec);
}

absl::StatusOr<std::vector<StageTensor>> WeightFetcher::Fetch(
    const std::vector<TensorSpec>& specs) {
  std::vector<StageTensor> tensors(specs.size());
  std::atomic<size_t> next{0};
  const auto fetch_some = [&] {
    try {
      for (size_t i = next++; i < specs.size() && ended().ok(); i = next++) {
        auto data = Get(specs[i]);
        if (!data.ok()) return End(data.status());
        tensors[i] = {specs[i], *std::move(data)};
      }
    } catch (const std::bad_alloc&) {
      End(absl::ResourceExhaustedError("out of memory while weights were fetched"));
    }
  };
  std::vector<std::thread> threads;
  try {
    for (size_t i = 1; i < kParallelFetches; ++i) threads.emplace_back(fetch_some);
  } catch (const std::system_error&) {
    // The machine is short of threads or memory: fewer do.
  }
  fetch_some();
  for (std::thread& thread : threads) thread.join();
  RETURN_IF_ERROR(ended());
  return tensors;
}

}  // namespace efedllm
