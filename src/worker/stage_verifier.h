// Computes again, for the coordinator's audits, what layers make of rows that it sends: layers
// that the node has in its weight cache, one sequence from position 0 on, in one pass.
#ifndef EFEDLLM_WORKER_STAGE_VERIFIER_H_
#define EFEDLLM_WORKER_STAGE_VERIFIER_H_

#include <grpcpp/support/byte_buffer.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "common/sha256.h"
#include "layers/compute.h"
#include "model/weight_cache.h"
#include "tensor/matrix.h"
#include "wire/replay_wire.h"
#include "worker/stage_tamper.h"

namespace efedllm {

struct StageVerifierOptions {
  uint64_t memory_bytes = uint64_t{256} << 20;  // of a question's rows and KV; weights are mapped
  std::string kernels = "auto";
  // While the node's own stage computes, each step of a replay waits for a pause, at most so long.
  std::function<bool()> busy;  // called on the verifier's thread; may be null
  absl::Duration patience = absl::Milliseconds(100);
  uint32_t step_rows = 64;
  // A question that nobody asks about any more gives way to the next.
  absl::Duration forgotten = absl::Seconds(15);
};

// One question at a time: it is asked, its inputs follow, it is computed on a thread of the lowest
// priority, and whoever asked hears a commitment before the answer.
class StageVerifier {
 public:
  // cache, clock and tamper (of tests; null: it works as it should) are borrowed and outlive this.
  StageVerifier(StageVerifierOptions options, WeightCache& cache, const Clock& clock,
                const StageTamper* tamper = nullptr);
  ~StageVerifier();  // ends what is computed

  // A request as bytes (wire/replay_wire.h), answered likewise. Waits half a second at most, where
  // a commitment is asked for that is not there yet. InvalidArgument: malformed, or not what comes
  // next; NotFound: not all of these layers are here, or no such question; ResourceExhausted:
  // another question is under way, or this one is too large; DataLoss: rows that are not finite.
  absl::StatusOr<grpc::ByteBuffer> Answer(const grpc::ByteBuffer& request) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  enum class Phase { kNone, kTaking, kComputing, kDone };  // of a question; goes on only

  struct Job {
    uint64_t number = 0;
    ReplayQuestion question;
    Matrix rows;  // inputs, then outputs
    std::vector<Sha256Digest> after_layer;
    ReplayNonce nonce = {};
    absl::Status failure;  // of kDone
    Sha256Digest commitment = {};
  };

  absl::Status Ask(uint64_t number, ReplayQuestion question) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status Take(const ReplayInputs& inputs) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<ReplayReply> Commit() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<ReplayReply> Reveal(const ReplayReveal& reveal) const
      ABSL_SHARED_LOCKS_REQUIRED(mu_);
  bool Forgotten() const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  bool HasWork() const ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return stopping_ || phase_ == Phase::kComputing;
  }

  void Run() ABSL_LOCKS_EXCLUDED(mu_);
  absl::Status Replay(Job& job, Compute& compute) const;
  absl::Status GiveWay() const ABSL_LOCKS_EXCLUDED(mu_);

  const StageVerifierOptions options_;
  WeightCache& cache_;
  const Clock& clock_;
  const StageTamper* const tamper_;

  mutable absl::Mutex mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  Phase phase_ ABSL_GUARDED_BY(mu_) = Phase::kNone;
  // While kComputing its rows and digests are the thread's.
  std::shared_ptr<Job> job_ ABSL_GUARDED_BY(mu_);
  uint32_t taken_ ABSL_GUARDED_BY(mu_) = 0;      // positions of its inputs
  bool committed_ ABSL_GUARDED_BY(mu_) = false;  // it was told
  absl::Time touched_ ABSL_GUARDED_BY(mu_);      // when it was last asked about

  std::thread thread_;  // last: it uses all of the above
};

}  // namespace efedllm

#endif  // EFEDLLM_WORKER_STAGE_VERIFIER_H_
