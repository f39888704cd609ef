#include "coordinator/coordinator.h"

#include <grpcpp/server_builder.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "cluster/kv_rule.h"
#include "common/logging.h"
#include "common/status_macros.h"
#include "common/units.h"
#include "coordinator/admin_service.h"
#include "coordinator/audit_sources.h"
#include "coordinator/basis_keeper.h"
#include "coordinator/cluster_metrics.h"
#include "coordinator/control_service.h"
#include "coordinator/draft_model.h"
#include "coordinator/enrolment_service.h"
#include "coordinator/epoch_builder.h"
#include "coordinator/kept_rows_client.h"
#include "coordinator/ledger_head_publisher.h"
#include "coordinator/network_stage_replayer.h"
#include "coordinator/node_drains.h"
#include "coordinator/openai_api.h"
#include "coordinator/receipt_checker.h"
#include "coordinator/reply_store.h"
#include "coordinator/served_model.h"
#include "coordinator/stage_meters.h"
#include "coordinator/state_database.h"
#include "coordinator/state_dir_lock.h"
#include "coordinator/step_observers.h"
#include "coordinator/switching_pipeline.h"
#include "coordinator/trace_store.h"
#include "coordinator/weight_server.h"
#include "layers/compute.h"
#include "model/tensor_hasher.h"
#include "model/weight_cache.h"
#include "model/weights.h"
#include "net/credentials.h"
#include "net/hop.h"
#include "net/http_server.h"
#include "net/link_prober.h"
#include "prometheus/registry.h"
#include "wire/step_wire.h"

namespace efedllm {
namespace {

constexpr uint32_t kDefaultContext = 8192;
constexpr size_t kPlannedStreams = 16;
constexpr uint64_t kAuditShareOfMemory = 4;  // of --memory, for weights that audits hold
constexpr absl::Duration kServerShutdown = absl::Seconds(2);
constexpr absl::Duration kLastWords = absl::Seconds(1);  // for the API's running requests
// Far more than requests that may wait, so that a crowd is told to come back (429) and not cut off.
constexpr size_t kMaxHttpConnections = 1024;

StepLimits LimitsOf(const CoordinatorOptions& options, const ModelConfig& config) {
  StepLimits limits;
  limits.max_tokens = std::max(limits.max_tokens, options.scheduler.max_step_tokens);
  limits.max_spans =
      std::max<uint32_t>(limits.max_spans, static_cast<uint32_t>(options.scheduler.max_sequences));
  limits.max_position = options.context != 0 ? std::min(options.context, config.context)
                                             : std::min(config.context, kDefaultContext);
  return limits;
}

LinkSpeed OwnLink(NodeId to, const absl::StatusOr<LinkMeasurement>& measured) {
  LinkSpeed link{.from = kCoordinatorNode, .to = to, .reachable = measured.ok()};
  if (measured.ok()) {
    link.rtt = measured->rtt;
    link.bytes_per_second = measured->bytes_per_second;
  } else {
    spdlog::warn("the coordinator can't reach {}: {}", NodeName(to),
                 Printable(measured.status().message(), 300));
  }
  return link;
}

}  // namespace

// In the order in which they are made; each borrows from those above it.
struct Coordinator::Parts {
  Parts(const CoordinatorOptions& options, const Clock& clock) : options(options), clock(clock) {}

  absl::Status Load();
  absl::Status LoadDraftModel();
  absl::Status Secure();
  absl::Status Listen();
  absl::Status StartIncentives();
  // Whether what is asked for now can be booked.
  absl::Status Accepting() const {
    return incentives ? incentives->book().accepting() : absl::OkStatus();
  }
  absl::Status Serve();
  EpochKeeperOptions KeeperOptions(std::vector<LayerCost> layers);

  const CoordinatorOptions options;
  const Clock& clock;
  StateDirLock lock;
  prometheus::Registry registry;

  Compute compute;  // of the head, and of all layers when computing alone
  std::unique_ptr<ServedModel> model;
  std::unique_ptr<DraftModel> draft_model;  // null: none
  StepLimits limits;
  KvType kv_type = KvType::kF32;
  std::unique_ptr<TensorHasher> hasher;
  std::unique_ptr<WeightCache> weight_cache;
  std::unique_ptr<WeightServer> weights;

  std::unique_ptr<Database> database;
  std::unique_ptr<CertificateAuthority> ca;
  std::unique_ptr<JoinTokens> tokens;
  std::string join_token;
  std::unique_ptr<Transport> transport;
  std::unique_ptr<ReceiptChecker> receipts;
  std::unique_ptr<LedgerHeadPublisher> ledger_heads;
  std::unique_ptr<KeptRowsClient> kept_rows;
  std::unique_ptr<NetworkStageReplayer> replayer;

  std::unique_ptr<HopReceiver> receiver;
  std::unique_ptr<HopInbox> inbox;
  std::unique_ptr<EdgeCodecs> codecs;
  std::unique_ptr<ClusterEpochBuilder> builder;
  std::unique_ptr<SwitchingPipeline> pipeline;
  std::unique_ptr<EpochKeeper> keeper;
  std::unique_ptr<BasisKeeper> basis_keeper;
  std::unique_ptr<NodeDrains> drains;
  std::unique_ptr<LinkProber> prober;
  std::unique_ptr<Enroller> enroller;
  std::unique_ptr<EnrolmentService> enrolment_service;
  std::unique_ptr<ControlService> control_service;
  std::unique_ptr<grpc::Server> server;
  int listen_port = 0;

  TraceStore traces;
  std::unique_ptr<StageMeters> stage_meters;
  std::unique_ptr<ClusterMetrics> cluster_metrics;
  std::unique_ptr<UsageMeter> usage;
  absl::Mutex scheduler_mu;  // audits, which end after it, look whether it is busy
  std::unique_ptr<Scheduler> scheduler;
  std::unique_ptr<Incentives> incentives;  // null: nobody is paid
  std::unique_ptr<ReplyStore> replies;
  std::unique_ptr<OpenAiApi> api;
  std::unique_ptr<HttpServer> http;
  std::unique_ptr<AdminService> admin_service;
  std::unique_ptr<AdminServer> admin;
};

absl::Status Coordinator::Parts::Load() {
  const int threads = static_cast<int>(options.own.threads);
  ASSIGN_OR_RETURN(compute, Compute::Create(threads, options.kernels));
  ASSIGN_OR_RETURN(model, ServedModel::Load(options.model, compute));
  RETURN_IF_ERROR(CheckModelTensors(model->config, model->file));
  limits = LimitsOf(options, model->config);
  kv_type = options.kv_type.value_or(AutoKvType(model->config));
  RETURN_IF_ERROR(CheckKvType(model->config, kv_type));
  model->context = limits.max_position;
  RETURN_IF_ERROR(LoadDraftModel());
  const std::string digests = options.state_dir + "/digests";
  ASSIGN_OR_RETURN(hasher, TensorHasher::Create(model->file, digests));
  ASSIGN_OR_RETURN(weight_cache, WeightCache::Open(options.state_dir + "/weights"));
  weights = std::make_unique<WeightServer>(model->file);
  return absl::OkStatus();
}

absl::Status Coordinator::Parts::LoadDraftModel() {
  if (options.draft_model.empty()) return absl::OkStatus();
  DraftModelOptions draft;
  draft.path = options.draft_model;
  draft.context = limits.max_position;
  draft.max_sequences = options.scheduler.max_sequences;
  absl::StatusOr<std::unique_ptr<DraftModel>> loaded =
      DraftModel::Load(draft, *model, clock, compute);
  if (!loaded.ok()) {
    return absl::Status(loaded.status().code(), absl::StrCat("draft model ", options.draft_model,
                                                             ": ", loaded.status().message()));
  }
  draft_model = *std::move(loaded);
  spdlog::info("draft model {}: {} of memory", ModelNameFromPath(options.draft_model),
               FormatBytes(draft_model->memory_bytes()));
  return absl::OkStatus();
}

absl::Status Coordinator::Parts::Secure() {
  ASSIGN_OR_RETURN(database, OpenStateDatabase(options.state_dir));
  ASSIGN_OR_RETURN(ca, CertificateAuthority::OpenOrCreate(options.state_dir, clock.WallNow()));
  tokens = std::make_unique<JoinTokens>(*database, clock, ca->fingerprint());
  ASSIGN_OR_RETURN(join_token, tokens->StartToken(options.state_dir));
  ASSIGN_OR_RETURN(SigningKey key, SigningKey::OpenOrCreate(options.state_dir + "/signing.key"));
  receipts = std::make_unique<ReceiptChecker>(std::move(key), clock);
  ledger_heads = std::make_unique<LedgerHeadPublisher>(clock, receipts->key());
  if (options.insecure) {
    transport = std::make_unique<Transport>(Transport::Insecure(kCoordinatorNode));
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const Identity identity, ca->CoordinatorIdentity(clock.WallNow()));
  transport = std::make_unique<Transport>(Transport::Tls(identity));
  return absl::OkStatus();
}

EpochKeeperOptions Coordinator::Parts::KeeperOptions(std::vector<LayerCost> layers) {
  EpochKeeperOptions keeper_options;
  keeper_options.rules = options.rules;
  keeper_options.planner.kv_tokens_least = limits.max_position;
  keeper_options.planner.kv_tokens_wanted =
      uint64_t{limits.max_position} * options.scheduler.max_sequences;
  keeper_options.planner.layout = options.layout;
  keeper_options.planner.streams = std::min(kPlannedStreams, options.scheduler.max_sequences);
  keeper_options.planner.row_bytes = static_cast<double>(sizeof(float)) * model->config.d_model;
  keeper_options.layers = std::move(layers);
  keeper_options.own = options.own;
  keeper_options.standby = options.standby;
  const absl::StatusOr<HeadSpecs> head = HeadTensors(model->config, model->file);
  if (head.ok()) {
    keeper_options.own_overhead_bytes = PackedBytes(head->weight);
    keeper_options.planner.head.cost = {PackedBytes(head->weight),
                                        2 * head->weight.rows * head->weight.cols, 0};
  }
  if (draft_model) keeper_options.own_overhead_bytes += draft_model->memory_bytes();
  keeper_options.measure_links = [this](const MeasureLinks& links) {
    std::vector<LinkProber::Target> targets;
    for (const LinkTarget& target : links.targets) targets.push_back({target.node, target.address});
    prober->Measure(targets);
  };
  keeper_options.on_lapse = [this](NodeId node, TrustEventKind kind) {
    if (incentives) incentives->book().OnLapse(node, kind);
  };
  keeper_options.routing_share = [this](NodeId node) {
    return incentives ? incentives->book().RoutingShare(node) : 1;
  };
  return keeper_options;
}

absl::Status Coordinator::Parts::Listen() {
  kept_rows = std::make_unique<KeptRowsClient>(*transport);
  replayer = std::make_unique<NetworkStageReplayer>(*transport);
  ASSIGN_OR_RETURN(std::vector<LayerCost> layers,
                   ClusterEpochBuilder::LayerCosts(model->config, model->file, kv_type));
  receiver =
      std::make_unique<HopReceiver>(*transport, MaxStepFrameBytes(limits, model->config.d_model));
  inbox = std::make_unique<HopInbox>(*receiver);
  basis_keeper =
      std::make_unique<BasisKeeper>(model->file, options.state_dir, [this](const auto& bases) {
        codecs->AddBases(bases);
        keeper->OnBases();
      });
  codecs = std::make_unique<EdgeCodecs>(
      options.codec, model->config.d_model, *weights,
      [this](const std::vector<uint32_t>& boundaries) { basis_keeper->Want(boundaries); });
  builder = std::make_unique<ClusterEpochBuilder>(
      EpochParts{*database, *transport, clock, model->file, model->config, *hasher, *weight_cache,
                 *weights, *codecs, *inbox, compute, options.receipts ? receipts.get() : nullptr},
      EpochOptions{limits, kv_type});
  pipeline = std::make_unique<SwitchingPipeline>(
      [this](size_t active) { keeper->SetActiveSequences(active); });
  keeper =
      std::make_unique<EpochKeeper>(clock, *builder, *pipeline, KeeperOptions(std::move(layers)));
  drains = std::make_unique<NodeDrains>(*database, clock, *keeper);
  RETURN_IF_ERROR(drains->Restore());
  prober = std::make_unique<LinkProber>(
      *transport, LinkProberOptions(), [this](NodeId node, const auto& measured) {
        keeper->OnLink(kCoordinatorNode, nullptr, OwnLink(node, measured));
      });
  enroller = std::make_unique<Enroller>(*ca, *tokens, *database, clock);
  enrolment_service = std::make_unique<EnrolmentService>(*enroller);
  control_service = std::make_unique<ControlService>(
      *transport, *keeper, *weights, *enroller, *receipts, options.receipts, ledger_heads.get());

  grpc::ServerBuilder server_builder;
  ConfigureServer(server_builder);
  server_builder.AddListeningPort(options.listen, transport->server_credentials(), &listen_port);
  server_builder.RegisterService(enrolment_service.get());
  server_builder.RegisterService(control_service.get());
  receiver->Register(server_builder);
  server = server_builder.BuildAndStart();
  if (server == nullptr || listen_port == 0) {
    return absl::UnavailableError(absl::StrCat(
        "cannot listen on ", options.listen,
        ": the port is taken, or the address is not one of this machine; choose another with "
        "--listen"));
  }
  builder->SetListenPort(listen_port);
  return absl::OkStatus();
}

absl::Status Coordinator::Parts::StartIncentives() {
  if (!options.receipts) return absl::OkStatus();
  if (options.receipt_sink != nullptr) {
    receipts->Start(*options.receipt_sink);
    return absl::OkStatus();
  }
  IncentivesOptions incentive{.state_dir = options.state_dir, .rules = options.incentive_rules};
  incentive.audits.kernels = options.kernels;
  const IncentivesParts parts{
      .clock = clock,
      .config = model->config,
      .model = model->id,
      .keeper = *keeper,
      .usage = *usage,
      .rows = *kept_rows,
      .bases = BasesOfCodecs(*codecs),
      .replay = {.config = model->config,
                 .weight_bytes = options.own.memory_bytes / kAuditShareOfMemory},
      .layers = LayersOfModel(model->config, model->file, weight_cache.get(), hasher.get()),
      .busy =
          [this] {
            absl::MutexLock lock(&scheduler_mu);
            return scheduler != nullptr && scheduler->Stats().running > 0;
          },
      .safe_channels = !options.insecure,
      .replayer = replayer.get()};
  ASSIGN_OR_RETURN(incentives, Incentives::Start(incentive, parts));
  receipts->Start(*incentives);
  ledger_heads->Start(incentives->ledger(), options.ledger_head_interval);
  return absl::OkStatus();
}

absl::Status Coordinator::Parts::Serve() {
  stage_meters = std::make_unique<StageMeters>(registry, [this] {
    std::map<NodeId, absl::Duration> offsets;
    for (const auto& [id, node] : TracedNodes(keeper->Status())) offsets[id] = node.clock_offset;
    return offsets;
  });
  if (options.receipts) usage = std::make_unique<UsageMeter>(model->config);
  scheduler = std::make_unique<Scheduler>(clock, *model, *pipeline, options.scheduler, registry,
                                          StepObservers{&traces, stage_meters.get(), usage.get()},
                                          draft_model.get());
  RETURN_IF_ERROR(StartIncentives());
  IncentiveParts incentive;
  if (incentives) {
    incentive = {&incentives->book(), &incentives->audits(), &incentives->ledger(),
                 ledger_heads.get()};
  }
  cluster_metrics = std::make_unique<ClusterMetrics>(
      clock, [this] { return keeper->Status(); }, *stage_meters, receipts.get(), incentive);
  ASSIGN_OR_RETURN(replies, ReplyStore::Open(options.state_dir + "/replies.db", clock));
  api = std::make_unique<OpenAiApi>(
      clock, *model, *scheduler, registry, cluster_metrics.get(),
      OpenAiOptions{options.scheduler.max_queue, replies.get(),
                    [this] { return keeper->Status().state; }, [this] { return Accepting(); }});
  admin_service = std::make_unique<AdminService>(
      clock, *keeper, *scheduler, *tokens, *drains, traces, *stage_meters, registry,
      ServedFacts{model->id, model->config.layers, options.codec.name()}, incentive);
  ASSIGN_OR_RETURN(admin, AdminServer::Start(options.state_dir, *admin_service));
  HttpServerOptions http_options;
  http_options.address = options.http;
  http_options.max_connections = kMaxHttpConnections;
  ASSIGN_OR_RETURN(
      http, HttpServer::Start(
                http_options, [this](HttpExchange& e) { api->Handle(e); }, OpenAiApi::ErrorReply));
  keeper->Start();
  return absl::OkStatus();
}

Coordinator::Coordinator(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

absl::StatusOr<std::unique_ptr<Coordinator>> Coordinator::Start(const CoordinatorOptions& options,
                                                                const Clock& clock) {
  // Its destructor takes down what stands when a step fails.
  std::unique_ptr<Coordinator> coordinator(
      new Coordinator(std::make_unique<Parts>(options, clock)));
  Parts& parts = *coordinator->parts_;
  ASSIGN_OR_RETURN(parts.lock, StateDirLock::Take(options.state_dir));
  RETURN_IF_ERROR(parts.Load());
  RETURN_IF_ERROR(parts.Secure());
  RETURN_IF_ERROR(parts.Listen());
  RETURN_IF_ERROR(parts.Serve());
  return coordinator;
}

Coordinator::~Coordinator() {
  if (parts_->api) parts_->api->Stop();
  if (parts_->http) parts_->http->Stop(kLastWords);
  parts_->http.reset();
  parts_->admin.reset();
  parts_->api.reset();
  if (parts_->keeper) parts_->keeper->Stop();
  parts_->basis_keeper.reset();
  parts_->prober.reset();
  parts_->admin_service.reset();
  {
    absl::MutexLock lock(&parts_->scheduler_mu);
    parts_->scheduler.reset();
  }
  if (parts_->inbox) parts_->inbox->Stop();
  if (parts_->receiver) parts_->receiver->Shutdown();
  if (parts_->server) parts_->server->Shutdown(absl::ToChronoTime(absl::Now() + kServerShutdown));
  parts_->server.reset();
  if (parts_->receipts) parts_->receipts->Stop();
  if (parts_->incentives) parts_->incentives->Stop();
  if (parts_->ledger_heads) parts_->ledger_heads->Stop();
  parts_->incentives.reset();
}

bool Coordinator::Drain(absl::Duration timeout) {
  parts_->keeper->SetDraining();
  parts_->scheduler->Drain();
  const absl::Time until = SteadyNow() + timeout;
  bool idle = false;
  do {
    idle = parts_->scheduler->WaitIdle(std::min(until - SteadyNow(), kLongestWait));
  } while (!idle && SteadyNow() < until);
  parts_->ledger_heads->Hurry();
  // What was computed, or why not all was, still has to reach its clients.
  if (!idle) parts_->api->Stop();
  parts_->http->Stop(std::max(until - SteadyNow(), kLastWords));
  return idle;
}

int Coordinator::listen_port() const { return parts_->listen_port; }
int Coordinator::http_port() const { return parts_->http->port(); }
const std::string& Coordinator::join_token() const { return parts_->join_token; }
const std::string& Coordinator::model_id() const { return parts_->model->id; }
JoinTokens& Coordinator::tokens() { return *parts_->tokens; }
NodeDrains& Coordinator::drains() { return *parts_->drains; }
Scheduler& Coordinator::scheduler() { return *parts_->scheduler; }
ReceiptChecker& Coordinator::receipts() { return *parts_->receipts; }
KeptRowsSource& Coordinator::kept_rows() { return *parts_->kept_rows; }
Incentives* Coordinator::incentives() { return parts_->incentives.get(); }
ClusterStatus Coordinator::cluster_status() const { return parts_->keeper->Status(); }

}  // namespace efedllm
