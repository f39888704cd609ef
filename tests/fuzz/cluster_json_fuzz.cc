// libs: efedllm_simulator
// Any bytes as a cluster file: refused with a message, or a spec within its bounds.
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"
#include "common/check.h"
#include "simulator/cluster_json.h"

using efedllm::kMaxSimNodes;
using efedllm::ParseClusterJson;
using efedllm::SimModel;
using efedllm::SimNode;
using efedllm::SimPair;
using efedllm::SimSpec;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const absl::string_view text(reinterpret_cast<const char*>(data), size);
  const absl::StatusOr<SimSpec> spec =
      ParseClusterJson(text, [](const std::string&) -> absl::StatusOr<SimModel> {
        return absl::NotFoundError("no files here");
      });
  if (!spec.ok()) {
    CHECK(!spec.status().message().empty());
    return 0;
  }
  CHECK(!spec->nodes.empty() && spec->nodes.size() <= kMaxSimNodes);
  CHECK(spec->model.layers > 0 && spec->model.bytes_per_weight > 0);
  CHECK(spec->load.requests > 0 && spec->load.streams > 0);
  for (const SimNode& node : spec->nodes) {
    CHECK(std::isfinite(node.profile.read_bytes_per_second));
    CHECK(node.profile.read_bytes_per_second > 0 && node.access.bytes_per_second > 0);
    CHECK(!node.medium || *node.medium < spec->media.size());
    CHECK(!node.host || *node.host < spec->hosts.size());
  }
  for (const SimPair& pair : spec->pairs) {
    CHECK(pair.from <= spec->nodes.size() && pair.to <= spec->nodes.size());
    CHECK(std::isfinite(pair.link.delay_seconds) && pair.link.bytes_per_second > 0);
  }
  return 0;
}
