#include "worker/prefetcher.h"

#include <spdlog/spdlog.h>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "common/status_macros.h"
#include "common/units.h"
#include "worker/disk_room.h"
#include "worker/fetch_progress.h"

namespace efedllm {

absl::Status Prefetcher::FetchOne(const TensorSpec& tensor, const StartCallback& start) {
  if (cache_.Has(tensor)) return absl::OkStatus();
  ASSIGN_OR_RETURN(const DiskSpace space, cache_.Space());
  // Twice: the packed tensor is written before the chunks are removed.
  if (!LeavesRoom(space, tensor.bytes() + PackedBytes(tensor))) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the disk has only ", FormatBytes(space.free), " free"));
  }
  FetchProgress progress(tensor.bytes(), /*draw_bar=*/false, [](const FetchBytes&) {});
  WeightFetcher fetcher(stub_, transport_, cache_, progress);
  if (!start(&fetcher)) return absl::CancelledError("there is other work");
  const absl::Cleanup ended = [&] { start(nullptr); };
  return fetcher.Fetch({tensor}).status();
}

void Prefetcher::Fetch(const Prefetch& prefetch, const StartCallback& start) {
  for (const TensorSpec& tensor : prefetch.tensors) {
    const absl::Status fetched = FetchOne(tensor, start);
    if (fetched.ok()) continue;
    if (absl::IsCancelled(fetched)) return;
    if (fetched != logged_) {
      spdlog::warn("weights are not fetched ahead: {}", std::string(fetched.message()));
    }
    logged_ = fetched;
    return;
  }
  spdlog::info("{} tensors that may be needed soon are here", prefetch.tensors.size());
  logged_ = absl::OkStatus();
}

}  // namespace efedllm
