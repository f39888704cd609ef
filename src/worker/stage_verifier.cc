#include "worker/stage_verifier.h"

#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/random.h"
#include "common/status_macros.h"
#include "model/stage_replay.h"
#include "model/tensor_loader.h"
#include "model/weights.h"

namespace efedllm {
namespace {

constexpr absl::Duration kCommitWait = absl::Milliseconds(500);
constexpr absl::Duration kPause = absl::Milliseconds(2);
constexpr absl::string_view kLayerPrefix = "blk.";

// What is computed at once, on top of the weights: rows, and the KV of one layer.
uint64_t BytesOf(const ReplayQuestion& question, uint32_t step_rows) {
  StepLimits limits;
  limits.max_tokens = step_rows;
  const uint64_t kv = KvTokensOfSequences({question.positions}, limits);
  return uint64_t{question.positions} * question.config.d_model * sizeof(float) +
         kv * KvBytesPerToken(question.config, question.kv_type);
}

// Of a layer, and of all layers.
bool IsOf(const TensorSpec& spec, uint32_t layer) {
  return !absl::StartsWith(spec.name, kLayerPrefix) ||
         absl::StartsWith(spec.name, absl::StrCat(kLayerPrefix, layer, "."));
}

StageReplay::LayerSource CachedLayers(WeightCache& cache, const std::vector<TensorSpec>& specs) {
  return [&cache, &specs](LayerRange layer) -> absl::StatusOr<std::vector<StageTensor>> {
    std::vector<StageTensor> tensors;
    for (const TensorSpec& spec : specs) {
      if (!IsOf(spec, layer.first)) continue;
      ASSIGN_OR_RETURN(std::shared_ptr<const PackedTensor> data, cache.Get(spec));
      tensors.push_back({spec, std::move(data)});
    }
    return tensors;
  };
}

}  // namespace

StageVerifier::StageVerifier(StageVerifierOptions options, WeightCache& cache, const Clock& clock,
                             const StageTamper* tamper)
    : options_(std::move(options)), cache_(cache), clock_(clock), tamper_(tamper), thread_([this] {
        Run();
      }) {}

StageVerifier::~StageVerifier() {
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
  }
  thread_.join();
}

absl::StatusOr<grpc::ByteBuffer> StageVerifier::Answer(const grpc::ByteBuffer& bytes) {
  ASSIGN_OR_RETURN(ReplayRequest request, ReplayRequestFromWire(bytes));
  absl::MutexLock lock(&mu_);
  ReplayReply reply;
  if (auto* question = std::get_if<ReplayQuestion>(&request.what)) {
    RETURN_IF_ERROR(Ask(request.question, std::move(*question)));
    return ToWire(reply);
  }
  if (job_ == nullptr || job_->number != request.question) {
    return absl::NotFoundError("there is no such question");
  }
  touched_ = clock_.Now();
  if (const auto* inputs = std::get_if<ReplayInputs>(&request.what)) {
    RETURN_IF_ERROR(Take(*inputs));
  } else if (const auto* reveal = std::get_if<ReplayReveal>(&request.what)) {
    ASSIGN_OR_RETURN(reply, Reveal(*reveal));
  } else {
    ASSIGN_OR_RETURN(reply, Commit());
  }
  return ToWire(reply);
}

bool StageVerifier::Forgotten() const { return clock_.Now() - touched_ > options_.forgotten; }

absl::Status StageVerifier::Ask(uint64_t number, ReplayQuestion question) {
  // One that is being computed ends by itself once it is forgotten.
  if (phase_ == Phase::kComputing || (phase_ == Phase::kTaking && !Forgotten())) {
    return absl::ResourceExhaustedError("another question is under way");
  }
  RETURN_IF_ERROR(ValidateStageTensors(question.config, question.layers, question.tensors));
  if (BytesOf(question, options_.step_rows) > options_.memory_bytes) {
    return absl::ResourceExhaustedError(
        absl::StrCat(question.positions, " positions are more than this node computes for others"));
  }
  for (const TensorSpec& spec : question.tensors) {
    if (!cache_.Has(spec)) return absl::NotFoundError("not all of these layers are here");
  }
  auto job = std::make_shared<Job>();
  job->number = number;
  job->question = std::move(question);
  try {
    job->rows = Matrix(job->question.positions, job->question.config.d_model);
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("out of memory");
  }
  job_ = std::move(job);
  phase_ = Phase::kTaking;
  taken_ = 0;
  committed_ = false;
  touched_ = clock_.Now();
  return absl::OkStatus();
}

absl::Status StageVerifier::Take(const ReplayInputs& inputs) {
  const size_t row_bytes = job_->rows.cols() * sizeof(float);
  const size_t rows = inputs.rows.size() / row_bytes;
  if (phase_ != Phase::kTaking || inputs.first_position != taken_ || rows == 0 ||
      inputs.rows.size() % row_bytes != 0 || rows > job_->rows.rows() - taken_) {
    return absl::InvalidArgumentError(
        absl::StrCat(inputs.rows.size(), " bytes of inputs from position ", inputs.first_position,
                     " on, after ", taken_, " of ", job_->rows.rows(), " positions"));
  }
  std::memcpy(job_->rows.row(taken_), inputs.rows.data(), inputs.rows.size());
  taken_ += static_cast<uint32_t>(rows);
  if (taken_ == job_->rows.rows()) phase_ = Phase::kComputing;
  return absl::OkStatus();
}

absl::StatusOr<ReplayReply> StageVerifier::Commit() {
  if (phase_ == Phase::kTaking) return absl::InvalidArgumentError("inputs are missing");
  const auto over = [this]() ABSL_SHARED_LOCKS_REQUIRED(mu_) {
    return stopping_ || phase_ != Phase::kComputing;
  };
  mu_.AwaitWithTimeout(absl::Condition(&over), kCommitWait);
  ReplayReply reply;
  if (phase_ != Phase::kDone) return reply;
  RETURN_IF_ERROR(job_->failure);
  reply.commitment = job_->commitment;
  committed_ = true;
  return reply;
}

absl::StatusOr<ReplayReply> StageVerifier::Reveal(const ReplayReveal& reveal) const {
  if (phase_ != Phase::kDone || !committed_ || reveal.first_position >= job_->rows.rows() ||
      reveal.first_position < job_->question.first_wanted) {
    return absl::InvalidArgumentError(
        absl::StrCat("there are no outputs from position ", reveal.first_position, " on"));
  }
  const size_t row_bytes = job_->rows.cols() * sizeof(float);
  const size_t rows = std::min(job_->rows.rows() - reveal.first_position,
                               std::max<size_t>(kReplayPieceBytes / row_bytes, 1));
  ReplayReply reply;
  reply.nonce = job_->nonce;
  reply.after_layer = job_->after_layer;
  reply.rows.assign(reinterpret_cast<const char*>(job_->rows.row(reveal.first_position)),
                    rows * row_bytes);
  return reply;
}

absl::Status StageVerifier::GiveWay() const {
  const absl::Time until = SteadyNow() + options_.patience;
  while (true) {
    {
      absl::MutexLock lock(&mu_);
      if (stopping_ || Forgotten()) return absl::CancelledError("nobody waits for it");
    }
    if (!options_.busy || !options_.busy() || SteadyNow() >= until) return absl::OkStatus();
    absl::SleepFor(kPause);
  }
}

absl::Status StageVerifier::Replay(Job& job, Compute& compute) const {
  const ReplayQuestion& question = job.question;
  Matrix inputs;
  if (tamper_ != nullptr && tamper_->replayed) inputs = job.rows;
  StageReplay replay({.config = question.config, .step_rows = options_.step_rows},
                     CachedLayers(cache_, question.tensors), compute);
  ReplayHooks hooks;
  hooks.before_step = [this](double) { return GiveWay(); };
  hooks.after_layer = [&](uint32_t layers, ConstMatrixRef rows) {
    if (layers < question.through) job.after_layer.push_back(DigestOfValues(rows));
  };
  RETURN_IF_ERROR(replay.Run(question.computed(), question.kv_type, {question.positions},
                             job.rows.ref(), hooks));
  if (inputs.rows() > 0) tamper_->replayed(question.computed(), inputs.ref(), job.rows.ref());
  job.after_layer.push_back(DigestOfValues(job.rows.ref()));
  const std::string nonce = SecureRandomBytes(job.nonce.size());
  std::copy(nonce.begin(), nonce.end(), job.nonce.begin());
  const ConstMatrixRef wanted = {job.rows.row(question.first_wanted),
                                 job.rows.rows() - question.first_wanted, job.rows.cols()};
  job.commitment = ReplayCommitment(job.nonce, job.after_layer, DigestOfValues(wanted));
  return absl::OkStatus();
}

void StageVerifier::Run() {
  if (setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), 19) != 0) {
    spdlog::warn("other nodes' work is verified at normal priority");
  }
  absl::StatusOr<Compute> compute = Compute::Create(0, options_.kernels);
  while (true) {
    std::shared_ptr<Job> job;
    {
      absl::MutexLock lock(&mu_);
      mu_.Await(absl::Condition(this, &StageVerifier::HasWork));
      if (stopping_) return;
      job = job_;
    }
    absl::Status computed = compute.status();
    try {
      if (computed.ok()) computed = Replay(*job, *compute);
    } catch (const std::bad_alloc&) {
      computed = absl::ResourceExhaustedError("out of memory");
    }
    absl::MutexLock lock(&mu_);
    job->failure = computed;
    phase_ = Phase::kDone;
  }
}

}  // namespace efedllm
