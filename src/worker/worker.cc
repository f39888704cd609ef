#include "worker/worker.h"

#include <grpcpp/server_builder.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/logging.h"
#include "common/random.h"
#include "common/status_macros.h"
#include "common/units.h"
#include "net/audit_call.h"
#include "net/link_prober.h"
#include "worker/backoff.h"
#include "worker/enrolment.h"
#include "worker/probe.h"
#include "worker/stage_verifier.h"

namespace efedllm {
namespace {

constexpr size_t kMaxFrameBytes = (size_t{64} << 20) + (size_t{1} << 20);
constexpr absl::Duration kCallTimeout = absl::Seconds(15);
constexpr absl::Duration kRenewalTimeout = absl::Seconds(3);  // heartbeats wait for it
constexpr absl::Duration kRenewalInterval = absl::Minutes(5);
constexpr absl::Duration kLogInterval = absl::Minutes(1);
constexpr absl::Duration kLateAfter = absl::Minutes(5);
constexpr absl::Duration kMoment = absl::Milliseconds(250);
constexpr uint64_t kKeptRowsShare = 8;  // of the memory that rows for audits may take
// What verifying others' work may take of the memory that the node offers.
constexpr uint64_t kMostReplayBytes = uint64_t{256} << 20;
constexpr uint64_t kReplayShare = 16;

absl::Status CheckOptions(const WorkerOptions& options) {
  RETURN_IF_ERROR(ParseHostPort(options.coordinator).status());
  RETURN_IF_ERROR(ParseHostPort(options.listen).status());
  if (!options.insecure) return absl::OkStatus();
  for (const std::string& address : {options.coordinator, options.listen}) {
    if (IsLoopback(address)) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("--insecure is for loopback addresses only, and ", address,
                     " is none: leave --insecure out and join with a --token"));
  }
  return absl::OkStatus();
}

// Logs a failure when it is new, and else now and then.
class RetryLog {
 public:
  void Failed(const std::string& coordinator, const absl::Status& status) {
    const absl::Time now = SteadyNow();
    if (status == last_ && now - logged_ < kLogInterval) return;
    last_ = status;
    logged_ = now;
    spdlog::warn("no connection to the coordinator at {}: {}; trying again", coordinator,
                 std::string(status.message()));
  }
  void Succeeded() { last_ = absl::OkStatus(); }

 private:
  absl::Status last_;
  absl::Time logged_ = absl::InfinitePast();
};

// Whether a counter moved within the last moment.
class RecentChange {
 public:
  bool Of(uint64_t count) {
    const absl::Time now = SteadyNow();
    if (std::exchange(count_, count) != count) changed_ = now;
    return now - changed_ < kMoment;
  }

 private:
  uint64_t count_ = 0;
  absl::Time changed_ = absl::InfinitePast();
};

LinkReport ReportOf(NodeId node, const absl::StatusOr<LinkMeasurement>& measured) {
  LinkReport report;
  report.link.to = node;
  report.link.reachable = measured.ok();
  if (measured.ok()) {
    report.link.rtt = measured->rtt;
    report.link.bytes_per_second = measured->bytes_per_second;
  } else {
    report.message = Printable(measured.status().message(), 300);
  }
  return report;
}

}  // namespace

bool IsRefusal(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kUnauthenticated:
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kUnimplemented:
      return true;
    default:
      return false;
  }
}

absl::StatusOr<std::unique_ptr<Worker>> Worker::Create(const WorkerOptions& options,
                                                       const Clock& clock) {
  RETURN_IF_ERROR(CheckOptions(options));
  std::unique_ptr<Worker> worker(new Worker(options, clock));
  ASSIGN_OR_RETURN(worker->compute_, Compute::Create(options.threads, options.kernels));
  ASSIGN_OR_RETURN(worker->state_, NodeState::Open(options.state_dir));
  ASSIGN_OR_RETURN(worker->cache_, WeightCache::Open(worker->state_->weights_dir()));
  ASSIGN_OR_RETURN(SigningKey key, SigningKey::FromPem(worker->state_->key_pem()));
  worker->receipts_ = std::make_unique<ReceiptWriter>(std::move(key), clock,
                                                      absl::StrCat(options.state_dir, "/receipts"),
                                                      &worker->options_.tamper);
  worker->heads_ =
      std::make_unique<HeldLedgerHeads>(absl::StrCat(options.state_dir, "/ledger-heads"));
  uint64_t rows_bytes = options.kept_rows_memory_bytes;
  if (options.profile) {
    worker->profile_ = *options.profile;
  } else {
    worker->profile_ = MeasureNode(worker->compute_, options.memory_bytes);
    rows_bytes = std::min(rows_bytes, worker->profile_.memory_bytes / kKeptRowsShare);
    worker->profile_.memory_bytes -= rows_bytes;
  }
  worker->rows_ = std::make_unique<KeptRows>(RowLogOptions{
      rows_bytes, options.kept_rows_disk_bytes, absl::StrCat(options.state_dir, "/rows")});
  return worker;
}

Worker::~Worker() {
  Stop();
  if (thread_.joinable()) thread_.join();
}

void Worker::Start() {
  thread_ = std::thread([this] {
    const absl::Status end = Loop();
    absl::MutexLock lock(&mu_);
    end_ = end;
  });
}

void Worker::Stop() {
  absl::MutexLock lock(&mu_);
  stop_ = true;
}

bool Worker::stop_requested() const {
  absl::MutexLock lock(&mu_);
  return stop_;
}

std::optional<absl::Status> Worker::Wait(absl::Duration timeout) {
  absl::MutexLock lock(&mu_);
  mu_.AwaitWithTimeout(
      absl::Condition(
          +[](std::optional<absl::Status>* end) { return end->has_value(); }, &end_),
      timeout);
  return end_;
}

absl::Status Worker::Loop() {
  Backoff backoff(options_.least_backoff, options_.most_backoff, SecureRandomU64());
  RetryLog log;
  absl::Time last_attached = clock_.Now();  // or begun
  while (true) {
    const Attempt attempt = Serve();
    if (stop_requested()) return absl::OkStatus();
    // Without TLS its hello may have been spoilt on the way.
    const bool spoilt = options_.insecure && absl::IsPermissionDenied(attempt.status);
    if (attempt.final || (!spoilt && IsRefusal(attempt.status))) return attempt.status;
    if (attempt.attached) {
      backoff.Reset();
      backoff.SetMost(options_.most_backoff);
      log.Succeeded();
      last_attached = clock_.Now();
    }
    if (attempt.status.ok()) continue;  // the certificate was renewed
    log.Failed(options_.coordinator, attempt.status);
    const absl::Duration away = clock_.Now() - last_attached;
    if (away > options_.retry_for) return GiveUp(attempt.status);
    if (away > kLateAfter) backoff.SetMost(options_.late_backoff);
    absl::MutexLock lock(&mu_);
    if (mu_.AwaitWithTimeout(absl::Condition(&stop_), backoff.Next())) return absl::OkStatus();
  }
}

absl::Status Worker::GiveUp(const absl::Status& why) const {
  return absl::DeadlineExceededError(absl::StrCat(
      "no connection to the coordinator at ", options_.coordinator, " for ",
      absl::FormatDuration(options_.retry_for), " (--retry-for), the last time because: ",
      why.message(), ". Is its address right, and does it run?"));
}

// One attachment with all that belongs to it: everything is new after a reconnect.
Worker::Attempt Worker::Serve() {
  std::optional<Identity> identity;
  const absl::StatusOr<Transport> transport = MakeTransport(identity);
  if (!transport.ok()) return {.status = transport.status()};
  return Attach(*transport, identity);
}

absl::StatusOr<Transport> Worker::MakeTransport(std::optional<Identity>& identity) {
  if (options_.insecure) return Transport::Insecure(state_->node());
  ASSIGN_OR_RETURN(identity, ObtainIdentity());
  return Transport::Tls(*identity);
}

absl::StatusOr<Identity> Worker::ObtainIdentity() {
  std::optional<Identity> stored = state_->LoadIdentity();
  const bool expired = stored && stored->expires <= clock_.WallNow();
  const bool other =
      stored && options_.token && stored->ca_fingerprint != options_.token->ca_fingerprint;
  // Whether it has expired is for the coordinator to say: this machine's clock may be ahead.
  if (stored && !other && (!expired || !options_.token)) return *std::move(stored);
  if (!options_.token) {
    return absl::FailedPreconditionError(
        "this node has not joined yet: start it with --token, as `efedllm-ctl token create` prints "
        "it at the coordinator");
  }
  ASSIGN_OR_RETURN(Identity identity, Enrol(options_.coordinator, *options_.token, options_.name,
                                            options_.owner, *state_, kCallTimeout));
  spdlog::info("joined as node {}; the certificate is valid until {}", NodeName(identity.node),
               absl::FormatTime("%Y-%m-%d", identity.expires, absl::UTCTimeZone()));
  return identity;
}

Worker::Attempt Worker::Attach(const Transport& transport,
                               const std::optional<Identity>& identity) {
  HopReceiver receiver(transport, kMaxFrameBytes);
  grpc::ServerBuilder builder;
  ConfigureServer(builder);
  int port = 0;
  builder.AddListeningPort(options_.listen, transport.server_credentials(), &port);
  receiver.Register(builder);
  KvReceiver kv_receiver(transport);
  kv_receiver.Register(builder);
  AuditServer rows_server(transport, AuditMethod::kRows);
  rows_server.SetHandler([this](const auto& request) { return rows_->FindRows(request); });
  rows_server.Register(builder);
  AuditServer replay_server(transport, AuditMethod::kReplay);
  replay_server.Register(builder);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr || port == 0) {
    receiver.Shutdown();
    return {.status = absl::UnknownError(absl::StrCat("can't listen on ", options_.listen,
                                                      ": is the address right and the port free?")),
            .final = true};
  }
  Attempt attempt = RunSession(transport, identity, {receiver, kv_receiver, replay_server, port});
  server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
  return attempt;
}

Worker::Attempt Worker::RunSession(const Transport& transport,
                                   const std::optional<Identity>& identity, const Served& served) {
  const auto stub = v1::Cluster::NewStub(
      transport.Dial(options_.coordinator, kCoordinatorNode, kControlKeepalive));
  // Over a connection of its own: the answers to pings don't queue up behind weights.
  const auto weights_stub =
      v1::Cluster::NewStub(transport.Dial(options_.coordinator, kCoordinatorNode));
  ControlSession session({.hello = MakeHello(served.port),
                          .coordinator = options_.coordinator,
                          .stop_requested = [this] { return stop_requested(); },
                          .renewed = [&] { return identity && RenewIfDue(*stub, *identity); },
                          .on_welcome =
                              [this] {
                                spdlog::info(
                                    "attached to {} as node {} (\"{}\"): {} threads, {} of memory",
                                    options_.coordinator, NodeName(state_->node()), options_.name,
                                    profile_.threads, FormatBytes(profile_.memory_bytes));
                                if (options_.on_attached) options_.on_attached();
                              }},
                         *stub, transport, clock_);
  StageRunner runner(
      served.receiver, clock_, [&](Epoch epoch, const absl::Status& why, StageFault fault) {
        spdlog::error("the stage of epoch {} broke: {}", epoch.v, std::string(why.message()));
        session.PostReport({.epoch = epoch,
                            .state = StageState::kFailed,
                            .message = Printable(why.message(), 500),
                            .fault = fault});
      });
  StageKeeper keeper(
      {.self = state_->node(),
       .memory_bytes = profile_.memory_bytes,
       .max_frame_bytes = kMaxFrameBytes,
       .coordinator = options_.coordinator,
       .draw_bar = options_.draw_bar},
      {*weights_stub, transport, *cache_, compute_, clock_, runner, rows_.get(), receipts_.get(),
       &options_.tamper},
      [&](const StageReport& report) { session.PostReport(report); },
      [&](const HandedOver& handed_over) { session.PostHandedOver(handed_over); });
  served.kv.SetSink(&keeper);
  const absl::Cleanup no_sink = [&] { served.kv.SetSink(nullptr); };
  StageVerifier verifier(
      {.memory_bytes = std::min(kMostReplayBytes, profile_.memory_bytes / kReplayShare),
       .kernels = options_.kernels,
       .busy = [&,
                recent = RecentChange()]() mutable { return recent.Of(runner.counters().steps); }},
      *cache_, clock_, &options_.tamper);
  served.replay.SetHandler([&](const auto& request) { return verifier.Answer(request); });
  const absl::Cleanup no_replay = [&] { served.replay.SetHandler(nullptr); };

  LinkProber prober(
      transport,
      {.busy = [&,
                recent = RecentChange()]() mutable { return recent.Of(runner.counters().steps); }},
      [&](NodeId node, const auto& measured) { session.PostLink(ReportOf(node, measured)); });

  Attempt attempt{
      .status = session.Run({keeper, runner, prober, rows_.get(), receipts_.get(), heads_.get()}),
      .attached = session.welcomed()};
  if (identity && !session.welcomed() && absl::IsUnavailable(attempt.status)) {
    attempt.status = Explain(attempt.status, *identity);
  }
  return attempt;
}

bool Worker::RenewIfDue(v1::Cluster::StubInterface& stub, const Identity& identity) {
  const absl::Time now = clock_.Now();
  if (!RenewalIsDue(identity, clock_.WallNow()) || now < next_renewal_) return false;
  next_renewal_ = now + kRenewalInterval;
  const absl::Status renewed = Renew(stub, identity, *state_, kRenewalTimeout).status();
  if (!renewed.ok()) {
    spdlog::warn("the certificate, valid until {}, was not renewed: {}; trying again later",
                 absl::FormatTime("%Y-%m-%d %H:%M", identity.expires, absl::UTCTimeZone()),
                 std::string(renewed.message()));
    return false;
  }
  // By a clock that is far ahead the new one is due, too.
  next_renewal_ = now + (identity.expires - identity.issued) / 3;
  spdlog::info("the certificate was renewed");
  return true;
}

// TLS only says that the connection failed. Somebody who answers with another CA will go on to.
absl::Status Worker::Explain(const absl::Status& status, const Identity& identity) const {
  const absl::Status pinned =
      FetchPinnedCa(options_.coordinator, identity.ca_fingerprint, kCallTimeout).status();
  if (pinned.ok() && identity.expires <= clock_.WallNow()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "this node's certificate has expired on ", FormatWallClock(identity.expires),
        ", and this machine's clock says ", FormatWallClock(clock_.WallNow()),
        ": start it with --token, as `efedllm-ctl token create` prints it at the coordinator (",
        status.message(), ")"));
  }
  if (absl::IsOutOfRange(pinned)) return pinned;  // it names the clock
  if (!absl::IsPermissionDenied(pinned)) return status;
  return absl::PermissionDeniedError(
      absl::StrCat("the coordinator at ", options_.coordinator,
                   " is not the one that this node joined: start it with --token, as "
                   "`efedllm-ctl token create` prints it there (",
                   pinned.message(), ")"));
}

Hello Worker::MakeHello(int port) const {
  Hello hello;
  hello.engine_version = options_.engine_version;
  hello.name = options_.name;
  hello.public_key = receipts_->public_key();
  hello.owner = options_.owner;
  hello.profile = profile_;
  const std::string own_port = absl::StrCat(":", port);
  hello.hop_address = options_.advertise.empty()               ? own_port
                      : ParseHostPort(options_.advertise).ok() ? options_.advertise
                                                               : options_.advertise + own_port;
  return hello;
}

}  // namespace efedllm
