#include "coordinator/audit_sources.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "model/tensor_loader.h"
#include "net/address.h"

namespace efedllm {
namespace {

// Of another machine's host.
bool SameHost(const std::string& a, const std::string& b) {
  const absl::StatusOr<HostPort> left = ParseHostPort(a), right = ParseHostPort(b);
  return left.ok() && right.ok() && left->host == right->host && !IsLoopback(a);
}

}  // namespace

BasesOfStage BasesOfCodecs(const EdgeCodecs& codecs) {
  return [&codecs](const ReceiptStage& stage) -> absl::StatusOr<EdgeBases> {
    const Assignment& assignment = stage.assignment;
    const bool needed = assignment.upstream_codec.needs_basis() || assignment.codec.needs_basis();
    if (!needed) return EdgeBases();
    const PlanCodecs chains = codecs.Of(assignment.epoch);
    if (stage.chain >= chains.size() || assignment.stage + 1 >= chains[stage.chain].size()) {
      return absl::FailedPreconditionError(
          absl::StrCat("the codecs of epoch ", assignment.epoch.v, " are not known any more"));
    }
    const std::vector<EdgeCodec>& edges = chains[stage.chain];
    return EdgeBases{edges[assignment.stage].basis, edges[assignment.stage + 1].basis};
  };
}

StageReplay::LayerSource LayersOfModel(const ModelConfig& config, const ModelFile& file,
                                       WeightCache* cache, TensorHasher* hasher) {
  return [&config, &file, cache, hasher](LayerRange layers) {
    return LoadStageTensors(config, file, layers, {.cache = cache, .hasher = hasher});
  };
}

std::vector<AuditVerifier> VerifiersOf(const ReceiptStage& stage, const ClusterStatus& cluster,
                                       const std::function<std::string(NodeId node)>& owner,
                                       const std::function<TrustState(NodeId node)>& trust) {
  const LayerRange wanted = stage.assignment.layers;
  std::vector<AuditVerifier> verifiers;
  for (const Member& member : cluster.members) {
    if (member.node == stage.node || !member.attached() || member.is_to_leave()) continue;
    if (SameHost(member.hello.hop_address, stage.address)) continue;
    const MemberStage* held = member.stage();
    AuditVerifier verifier;
    verifier.candidate.node = member.node;
    verifier.candidate.owner = owner(member.node);
    verifier.candidate.holds_layers =
        held == nullptr || (held->layers.first <= wanted.first && wanted.last <= held->layers.last);
    verifier.candidate.same_numerics = member.hello.numerics_id == kNumericsId;
    verifier.candidate.state = trust(member.node);
    verifier.address = member.hello.hop_address;
    verifiers.push_back(std::move(verifier));
  }
  return verifiers;
}

}  // namespace efedllm
