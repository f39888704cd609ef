#include "worker/fake_coordinator.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "common/check.h"
#include "testing/plain_frame.h"
#include "wire/status_wire.h"

namespace efedllm {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(20);
constexpr size_t kMaxFrameBytes = 4 << 20;

}  // namespace

FakeCoordinator::FakeCoordinator(absl::Span<const uint8_t> model, int port, bool insecure)
    : file_(*ModelFile::Parse(model)),
      config_(*ModelConfigFromFile(file_)),
      transport_(insecure ? Transport::Insecure(kCoordinatorNode)
                          : Transport::Tls(ca_.Coordinator())) {
  specs_ = *StageTensors(config_, file_, {0, config_.layers});
  for (TensorSpec& spec : specs_) {
    const absl::Span<const uint8_t> bytes = file_.FindTensor(spec.name)->bytes;
    for (size_t at = 0; at < bytes.size(); at += kChunkBytes) {
      spec.chunks.push_back(Sha256(bytes.subspan(at, kChunkBytes)));
    }
    const Sha256Digest id = spec.id();
    tensors_[std::string(id.begin(), id.end())] = std::string(bytes.begin(), bytes.end());
  }
  receiver_ = std::make_unique<HopReceiver>(transport_, kMaxFrameBytes);
  grpc::ServerBuilder builder;
  ConfigureServer(builder);
  builder.AddListeningPort(absl::StrCat("127.0.0.1:", port), transport_.server_credentials(),
                           &port_);
  builder.RegisterService(static_cast<v1::Enrolment::Service*>(this));
  builder.RegisterService(static_cast<v1::Cluster::Service*>(this));
  receiver_->Register(builder);
  server_ = builder.BuildAndStart();
  CHECK(server_ != nullptr && port_ != 0);
}

FakeCoordinator::~FakeCoordinator() {
  Detach();
  receiver_->Shutdown();
  server_->Shutdown(std::chrono::system_clock::now());
}

Assignment FakeCoordinator::MakeAssignment(Epoch epoch, LayerRange layers) const {
  Assignment assignment;
  assignment.epoch = epoch;
  assignment.layers = layers;
  assignment.config = config_;
  const std::vector<TensorSpec> wanted = *StageTensors(config_, file_, layers);
  for (const TensorSpec& spec : specs_) {
    const bool is_wanted = std::any_of(wanted.begin(), wanted.end(), [&](const TensorSpec& other) {
      return other.name == spec.name;
    });
    if (is_wanted) assignment.tensors.push_back(spec);
  }
  assignment.kv_tokens = 512;
  assignment.limits = {
      .max_tokens = 32, .max_spans = 8, .max_trims = 16, .max_position = config_.context};
  assignment.downstream_address = absl::StrCat(":", port_);
  return assignment;
}

void FakeCoordinator::Send(const v1::CoordinatorMessage& message) {
  absl::MutexLock lock(&mu_);
  CHECK(stream_ != nullptr);
  stream_->Write(message);
}

void FakeCoordinator::Assign(const Assignment& assignment) {
  v1::CoordinatorMessage message;
  *message.mutable_assignment() = ToWire(assignment);
  Send(message);
}

void FakeCoordinator::Release(Epoch epoch) {
  v1::CoordinatorMessage message;
  message.mutable_release()->set_epoch(epoch.v);
  Send(message);
}

void FakeCoordinator::HandOverTo(const HandOver& hand_over) {
  v1::CoordinatorMessage message;
  *message.mutable_hand_over() = ToWire(hand_over);
  Send(message);
}

void FakeCoordinator::SendPrefetch(const std::vector<TensorSpec>& tensors) {
  v1::CoordinatorMessage message;
  *message.mutable_prefetch() = ToWire(Prefetch{tensors});
  Send(message);
}

void FakeCoordinator::Detach() {
  absl::MutexLock lock(&mu_);
  if (context_ != nullptr) context_->TryCancel();
}

void FakeCoordinator::SetFaults(const Faults& faults) {
  absl::MutexLock lock(&mu_);
  faults_ = faults;
}

bool FakeCoordinator::AwaitUntil(const std::function<bool()>& condition) {
  const absl::Time deadline = absl::Now() + kPatience;
  while (absl::Now() < deadline) {
    {
      absl::MutexLock lock(&mu_);
      if (condition()) return true;
    }
    absl::SleepFor(absl::Milliseconds(5));
  }
  return false;
}

bool FakeCoordinator::AwaitAttached(int times) {
  return AwaitUntil(
      [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return attached_ >= times && stream_ != nullptr; });
}

bool FakeCoordinator::AwaitMessage(const std::function<bool(const v1::WorkerMessage&)>& matches) {
  return AwaitUntil([&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return std::any_of(messages_.begin(), messages_.end(), matches);
  });
}

std::optional<StageReport> FakeCoordinator::AwaitReport(
    const std::function<bool(const StageReport&)>& matches) {
  std::optional<StageReport> found;
  AwaitMessage([&](const v1::WorkerMessage& message) {
    if (!message.has_stage_status()) return false;
    const absl::StatusOr<StageReport> report = FromWire(message.stage_status());
    EXPECT_TRUE(report.ok()) << report.status();
    if (!report.ok() || !matches(*report)) return false;
    found = *report;
    return true;
  });
  return found;
}

std::optional<StageReport> FakeCoordinator::AwaitReport(Epoch epoch, StageState state) {
  return AwaitReport(
      [&](const StageReport& report) { return report.epoch == epoch && report.state == state; });
}

std::optional<HandedOver> FakeCoordinator::AwaitHandedOver() {
  std::optional<HandedOver> found;
  AwaitMessage([&](const v1::WorkerMessage& message) {
    if (message.has_handed_over()) found = *FromWire(message.handed_over());
    return found.has_value();
  });
  return found;
}

std::optional<StepFrame> FakeCoordinator::AwaitStep(const StepLimits& limits) {
  NodeId worker;
  {
    absl::MutexLock lock(&mu_);
    worker = worker_;
  }
  receiver_->SetUpstream(worker);
  const absl::Time deadline = absl::Now() + kPatience;
  while (absl::Now() < deadline) {
    const std::optional<HopFrame> frame = receiver_->Next(absl::Milliseconds(100));
    if (!frame) continue;
    StepFrame step;
    const absl::Status read = PlainStepFromWire(frame->bytes, limits, config_.d_model, step);
    EXPECT_TRUE(read.ok()) << read;
    if (!read.ok()) return std::nullopt;
    return step;
  }
  return std::nullopt;
}

std::unique_ptr<HopSender> FakeCoordinator::OpenHop() {
  absl::MutexLock lock(&mu_);
  return HopSender::Open(transport_, absl::StrCat("127.0.0.1", hello_.hop_address), worker_);
}

std::unique_ptr<KvSender> FakeCoordinator::OpenKv(Epoch next_epoch) {
  absl::MutexLock lock(&mu_);
  return std::make_unique<KvSender>(transport_, absl::StrCat("127.0.0.1", hello_.hop_address),
                                    worker_, next_epoch);
}

Hello FakeCoordinator::hello() const {
  absl::MutexLock lock(&mu_);
  return hello_;
}

int FakeCoordinator::enrolments() const {
  absl::MutexLock lock(&mu_);
  return enrolments_;
}
int FakeCoordinator::renewals() const {
  absl::MutexLock lock(&mu_);
  return renewals_;
}
uint64_t FakeCoordinator::chunks_sent() const {
  absl::MutexLock lock(&mu_);
  return chunks_sent_;
}
int FakeCoordinator::fetches() const {
  absl::MutexLock lock(&mu_);
  return fetches_;
}

grpc::Status FakeCoordinator::Sign(const std::string& request, v1::EnrolReply& reply) const {
  const auto certificate = ca_.authority().SignNode(request, absl::Now(), absl::Hours(1));
  if (!certificate.ok()) return ToGrpc(certificate.status());
  reply.set_certificate(certificate->certificate_der);
  return grpc::Status::OK;
}

grpc::Status FakeCoordinator::Enrol(grpc::ServerContext*, const v1::EnrolRequest* request,
                                    v1::EnrolReply* reply) {
  {
    absl::MutexLock lock(&mu_);
    ++enrolments_;
    if (!faults_.enrol.ok()) return faults_.enrol;
  }
  EXPECT_EQ(request->protocol_version(), kProtocolVersion);
  if (request->token_secret() != token().secret) {
    return grpc::Status(grpc::StatusCode::UNAUTHENTICATED, "the join token is wrong");
  }
  return Sign(request->certificate_request(), *reply);
}

grpc::Status FakeCoordinator::Renew(grpc::ServerContext* context, const v1::RenewRequest* request,
                                    v1::EnrolReply* reply) {
  EXPECT_TRUE(transport_.PeerNode(*context).ok());
  {
    absl::MutexLock lock(&mu_);
    ++renewals_;
  }
  return Sign(request->certificate_request(), *reply);
}

grpc::Status FakeCoordinator::Attach(grpc::ServerContext* context, ControlStream* stream) {
  const absl::StatusOr<NodeId> node = transport_.PeerNode(*context);
  if (!node.ok()) return ToGrpc(node.status());
  v1::WorkerMessage message;
  if (!stream->Read(&message)) return grpc::Status::OK;
  const absl::StatusOr<Hello> hello = FromWire(message.hello());
  EXPECT_TRUE(hello.ok()) << hello.status();
  if (!hello.ok()) return ToGrpc(hello.status());
  bool ignore_leaving = false;
  {
    absl::MutexLock lock(&mu_);
    if (!faults_.attach.ok()) return faults_.attach;
    ignore_leaving = faults_.ignore_leaving;
    v1::CoordinatorMessage welcome;
    welcome.mutable_welcome()->set_node(node->v);
    welcome.mutable_welcome()->set_heartbeat_millis(50);
    stream->Write(welcome);
    worker_ = *node;
    hello_ = *hello;
    stream_ = stream;
    context_ = context;
    messages_.clear();
    ++attached_;
  }
  while (stream->Read(&message)) {
    absl::MutexLock lock(&mu_);
    messages_.push_back(message);
    if (message.has_heartbeat() && !faults_.silent) {
      v1::CoordinatorMessage ping;
      ping.mutable_ping()->set_id(1);
      stream->Write(ping);
    }
    if (message.has_leaving() && !ignore_leaving) {
      v1::CoordinatorMessage release;
      release.mutable_release();
      stream->Write(release);
    }
  }
  absl::MutexLock lock(&mu_);
  if (stream_ == stream) {
    stream_ = nullptr;
    context_ = nullptr;
  }
  return grpc::Status(grpc::StatusCode::UNAVAILABLE, "the coordinator goes");
}

bool FakeCoordinator::NextChunk(std::string& data) {
  absl::Duration delay;
  {
    absl::MutexLock lock(&mu_);
    if (faults_.break_after_chunks == 0) return false;
    if (faults_.break_after_chunks > 0) --faults_.break_after_chunks;
    if (faults_.corrupt_chunks > 0) {
      --faults_.corrupt_chunks;
      data[data.size() / 2] = static_cast<char>(data[data.size() / 2] ^ 4);
    }
    ++chunks_sent_;
    delay = faults_.chunk_delay;
  }
  absl::SleepFor(delay);
  return true;
}

grpc::Status FakeCoordinator::FetchTensor(grpc::ServerContext* context,
                                          const v1::FetchTensorRequest* request,
                                          grpc::ServerWriter<v1::TensorChunk>* writer) {
  EXPECT_TRUE(transport_.PeerNode(*context).ok());
  {
    absl::MutexLock lock(&mu_);
    ++fetches_;
  }
  const auto tensor = tensors_.find(request->tensor_id());
  if (tensor == tensors_.end()) return grpc::Status(grpc::StatusCode::NOT_FOUND, "no such tensor");
  for (size_t at = request->first_chunk() * kChunkBytes; at < tensor->second.size();
       at += kChunkBytes) {
    v1::TensorChunk chunk;
    chunk.set_data(tensor->second.substr(at, kChunkBytes));
    if (!NextChunk(*chunk.mutable_data())) {
      return grpc::Status(grpc::StatusCode::UNAVAILABLE, "the fetch breaks");
    }
    if (!writer->Write(chunk)) break;
  }
  return grpc::Status::OK;
}

}  // namespace efedllm
