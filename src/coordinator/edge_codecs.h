// How the edges of a plan code what crosses them.
#ifndef EFEDLLM_COORDINATOR_EDGE_CODECS_H_
#define EFEDLLM_COORDINATOR_EDGE_CODECS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "cluster/planner.h"
#include "cluster/stage_plan.h"
#include "cluster/tensor_spec.h"
#include "common/ids.h"
#include "coordinator/weight_server.h"
#include "svd/boundary_basis.h"
#include "svd/codec.h"
#include "svd/codec_policy.h"

namespace efedllm {

// Where a stage's node serves hops.
struct HopTarget {
  NodeId node;
  std::string address;
};

struct EdgeCodec {
  CodecSetting setting;
  std::shared_ptr<const BoundaryBasis> basis;  // null: none, or not needed
  std::optional<TensorSpec> spec;              // of the basis, as workers fetch it
};

// By chain, its edges: into the first stage, between the stages, out of the last.
using PlanCodecs = std::vector<std::vector<EdgeCodec>>;

// Thread-safe.
class EdgeCodecs {
 public:
  // want: asked for bases of boundaries, which come by AddBases later. weights is borrowed and
  // offers them to workers.
  EdgeCodecs(const CodecRequest& request, size_t d_model, WeightServer& weights,
             std::function<void(const std::vector<uint32_t>& boundaries)> want);

  void AddBases(const std::vector<std::shared_ptr<const BoundaryBasis>>& bases)
      ABSL_LOCKS_EXCLUDED(mu_);

  // By what is known of nodes and links. targets: of each stage, in the order of plan.AllStages().
  // present: what the plan's edges use now, if they are there already.
  PlanCodecs Choose(const StagePlan& plan, const std::vector<HopTarget>& targets,
                    const PlannerInput& known, const PlanCodecs* present) const
      ABSL_LOCKS_EXCLUDED(mu_);

  // What an epoch uses; of the last few that were set.
  void Set(Epoch epoch, PlanCodecs codecs) ABSL_LOCKS_EXCLUDED(mu_);
  PlanCodecs Of(Epoch epoch) const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Offered {
    std::shared_ptr<const BoundaryBasis> basis;
    TensorSpec spec;
  };

  EdgeCodec ChooseEdge(const EdgeFacts& facts, uint32_t boundary, const EdgeCodec* present) const
      ABSL_SHARED_LOCKS_REQUIRED(mu_);

  const CodecRequest request_;
  const size_t d_model_;
  WeightServer& weights_;
  const std::function<void(const std::vector<uint32_t>&)> want_;

  mutable absl::Mutex mu_;
  std::array<CodecCosts, kEdgeLoads.size()> costs_ ABSL_GUARDED_BY(mu_);  // by EdgeLoad
  std::map<uint32_t, Offered> bases_ ABSL_GUARDED_BY(mu_);
  std::map<Epoch, PlanCodecs> epochs_ ABSL_GUARDED_BY(mu_);
};

}  // namespace efedllm

#endif  // EFEDLLM_COORDINATOR_EDGE_CODECS_H_
