#include "coordinator/openai_api.h"

#include <algorithm>
#include <atomic>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/logging.h"
#include "coordinator/openai_conversation.h"
#include "coordinator/openai_json.h"
#include "coordinator/openai_key.h"
#include "coordinator/openai_reply.h"
#include "coordinator/openai_request.h"
#include "coordinator/reply_log.h"
#include "prometheus/counter.h"
#include "prometheus/family.h"
#include "prometheus/text_serializer.h"
#include "spdlog/spdlog.h"

namespace efedllm {
namespace {

using nlohmann::json;

constexpr absl::Duration kPoll = absl::Milliseconds(50);  // "is the client still there?"
constexpr absl::Duration kProbeTimeout = absl::Seconds(5);
constexpr int kClientClosedRequest = 499;  // for the metrics alone
constexpr absl::Duration kLongestRetry = absl::Seconds(60);

HttpReply JsonReply(const json& body) {
  HttpReply reply;
  reply.body = DumpJson(body);
  return reply;
}

// The next news, or none: the client is gone.
template <class Connection>
std::optional<ReplySource::News> Await(ReplySource& source, const Connection& connection) {
  while (!connection.ClientGone()) {
    ReplySource::News news = source.Next(kPoll);
    if (news.any()) return news;
  }
  return std::nullopt;
}

void WriteStream(ReplySource& source, const std::string& first, HttpStream& stream) {
  if (!stream.WriteEvent(first)) return;
  while (const auto news = Await(source, stream)) {
    if (news->error.has_value()) stream.WriteEvent(DumpJson(ErrorJson(*news->error)));
    if (news->ended || !stream.WriteEvent(*news->piece)) return;
  }
}

}  // namespace

struct OpenAiApi::Impl {
  using Route = void (Impl::*)(HttpExchange&);
  using Parse = ApiResult<ApiRequest> (*)(absl::string_view);

  Impl(const Clock& clock, const ServedModel& model, Scheduler& scheduler,
       prometheus::Registry& registry, const prometheus::Collectable* cluster_metrics,
       const OpenAiOptions& options)
      : clock(clock),
        model(model),
        scheduler(scheduler),
        registry(registry),
        cluster_metrics(cluster_metrics),
        options(options),
        created(absl::ToUnixSeconds(clock.WallNow())),
        requests(prometheus::BuildCounter()
                     .Name("efedllm_http_requests_total")
                     .Help("Requests by route and status code; 499: the client went away")
                     .Register(registry)),
        error_for([this](const absl::Status& status) { return ErrorFor(status); }),
        surroundings{clock, model, scheduler, load, stopping, error_for},
        replies(clock, options.replies) {}

  void Completions(HttpExchange& exchange) { Generate(exchange, ParseCompletionRequest); }
  void ChatCompletions(HttpExchange& exchange) { Generate(exchange, ParseChatRequest); }
  void Models(HttpExchange& exchange);
  void OneModel(HttpExchange& exchange);
  void Health(HttpExchange& exchange);
  void Metrics(HttpExchange& exchange);

  void Generate(HttpExchange& exchange, Parse parse);
  void GenerateOnce(HttpExchange& exchange, Parse parse, absl::Time arrived,
                    const std::string& owner, absl::string_view key);
  ApiResult<std::shared_ptr<ReplySource>> Begin(const std::function<ApiResult<ApiRequest>()>& parse,
                                                absl::Time arrived, const std::string& owner,
                                                std::optional<int64_t> usual_seed = std::nullopt);
  std::optional<ApiError> Shed(const ApiRequest& request, const Turn& turn) const;
  void Answer(HttpExchange& exchange, std::shared_ptr<ReplySource> source,
              HttpHeaders headers = {});

  json ModelJson() const;
  ApiError ErrorFor(const absl::Status& status);
  absl::Duration RetryUnavailable() ABSL_LOCKS_EXCLUDED(mu);
  void Count(const HttpExchange& exchange, int status);
  void Reply(HttpExchange& exchange, HttpReply reply);
  void Refuse(HttpExchange& exchange, const ApiError& error);

  const Clock& clock;
  const ServedModel& model;
  Scheduler& scheduler;
  prometheus::Registry& registry;
  const prometheus::Collectable* const cluster_metrics;
  const OpenAiOptions options;
  const int64_t created;
  prometheus::Family<prometheus::Counter>& requests;

  std::atomic<bool> stopping = false;
  LoadMeter load;
  absl::Mutex mu;
  std::optional<absl::Time> outage_since ABSL_GUARDED_BY(mu);  // when a request met it first
  const std::function<ApiError(const absl::Status&)> error_for;
  const ServingSurroundings surroundings;
  ReplyLog replies;  // last: what it runs uses all of the above
};

namespace {

constexpr absl::string_view kModelPrefix = "/v1/models/";

}  // namespace

void OpenAiApi::Impl::Generate(HttpExchange& exchange, Parse parse) {
  const HttpRequest& request = exchange.request();
  const absl::Time arrived = clock.Now();
  const std::string owner = OwnerOf(request.Header("Authorization").value_or(""));
  if (const auto key = request.Header("Idempotency-Key")) {
    return GenerateOnce(exchange, parse, arrived, owner, *key);
  }
  auto begun = Begin([&] { return parse(request.body); }, arrived, owner);
  if (const auto* error = std::get_if<ApiError>(&begun)) return Refuse(exchange, *error);
  Answer(exchange, std::get<std::shared_ptr<ReplySource>>(std::move(begun)));
}

// The request's work belongs to the log and not to this connection: who comes with the same key
// finds it there.
void OpenAiApi::Impl::GenerateOnce(HttpExchange& exchange, Parse parse, absl::Time arrived,
                                   const std::string& owner, absl::string_view key) {
  const HttpRequest& request = exchange.request();
  auto parsed = ParseRequestKey(request, owner, key);
  if (const auto* error = std::get_if<ApiError>(&parsed)) return Refuse(exchange, *error);
  const auto& names = std::get<RequestKey>(parsed);
  const auto write = [this, parse, arrived, owner, seed = names.seed,
                      body = request.body](SharedReply& reply) mutable {
    auto begun =
        Begin([&] { return parse(std::exchange(body, std::string())); }, arrived, owner, seed);
    if (const auto* error = std::get_if<ApiError>(&begun)) return reply.Fail(*error);
    reply.Record(*std::get<std::shared_ptr<ReplySource>>(begun));
  };
  auto opened = replies.Open(names.id, names.fingerprint, write);
  if (const auto* error = std::get_if<ApiError>(&opened)) return Refuse(exchange, *error);
  auto& found = std::get<ReplyLog::Opened>(opened);
  HttpHeaders headers;
  if (!found.first) headers.emplace_back("Idempotent-Replayed", "true");
  Answer(exchange, std::move(found.reader), std::move(headers));
}

// Work that would be for nothing is not begun.
std::optional<ApiError> OpenAiApi::Impl::Shed(const ApiRequest& request, const Turn& turn) const {
  if (request.timeout == absl::InfiniteDuration()) return std::nullopt;
  const auto wait = load.WaitOf(turn, clock.Now(), scheduler.Stats());
  if (!wait.has_value() || *wait <= request.timeout) return std::nullopt;
  return ApiError{429,
                  absl::StrCat("the request would wait for about ",
                               absl::FormatDuration(absl::Ceil(*wait, absl::Seconds(1))),
                               ", longer than its timeout"),
                  "timeout", "queue_too_long", std::min(*wait - request.timeout, kLongestRetry)};
}

ApiResult<std::shared_ptr<ReplySource>> OpenAiApi::Impl::Begin(
    const std::function<ApiResult<ApiRequest>()>& parse, absl::Time arrived,
    const std::string& owner, std::optional<int64_t> usual_seed) {
  if (stopping) return ErrorFor(absl::UnavailableError("the coordinator is shutting down"));
  if (const absl::Status status = options.accepting ? options.accepting() : absl::OkStatus();
      !status.ok()) {
    return ErrorFor(status);
  }
  const SchedulerStats stats = scheduler.Stats();
  if (stats.serving) {
    absl::MutexLock lock(&mu);
    outage_since.reset();
  }
  if (options.max_queue > 0 && stats.queued >= options.max_queue) {
    return ErrorFor(absl::ResourceExhaustedError(
        absl::StrCat("the queue is full: ", stats.queued, " sequences wait")));
  }
  ApiResult<ApiRequest> parsed = parse();
  if (auto* error = std::get_if<ApiError>(&parsed)) return std::move(*error);
  auto& request = std::get<ApiRequest>(parsed);
  if (request.model.has_value() && !model.Answers(*request.model)) {
    return ApiError{404,
                    absl::StrCat("The model '", Printable(*request.model),
                                 "' does not exist; this server has '", model.id, "'"),
                    "model", "model_not_found"};
  }
  const auto max_positions = scheduler.MaxPositions();
  if (!max_positions.ok()) return ErrorFor(max_positions.status());
  const Turn turn{owner, request.priority};
  if (auto error = Shed(request, turn)) return *std::move(error);
  if (!request.seed.has_value()) request.seed = usual_seed;
  auto bound = BindRequest(request, model, *max_positions);
  if (auto* error = std::get_if<ApiError>(&bound)) return std::move(*error);
  auto& work = std::get<BoundRequest>(bound);
  for (GenerationInput& choice : work.choices) {
    choice.owner = owner;
    choice.deadline = arrived + request.timeout;
  }
  auto generation = scheduler.Submit(work.choices, NewReplyId(request.chat));
  if (!generation.ok()) return ErrorFor(generation.status());
  return std::make_shared<Conversation>(surroundings, std::move(request), work, turn,
                                        *std::move(generation),
                                        absl::ToUnixSeconds(clock.WallNow()));
}

// The first piece decides: a request that fails before it gets a status code, not a broken stream.
void OpenAiApi::Impl::Answer(HttpExchange& exchange, std::shared_ptr<ReplySource> source,
                             HttpHeaders headers) {
  auto first = Await(*source, exchange);
  if (!first.has_value()) {
    return Refuse(exchange, {kClientClosedRequest, "the client closed the connection", "", ""});
  }
  if (first->error.has_value()) return Refuse(exchange, *first->error);
  HttpReply reply;
  reply.headers = std::move(headers);
  if (!source->stream()) {
    reply.body = *std::move(first->piece);
    return Reply(exchange, std::move(reply));
  }
  Count(exchange, reply.status);
  reply.content_type = "text/event-stream";
  reply.headers.emplace_back("Cache-Control", "no-cache");
  exchange.Stream(std::move(reply),
                  [source = std::move(source), piece = *std::move(first->piece)](
                      HttpStream& stream) { WriteStream(*source, piece, stream); });
}

ApiError OpenAiApi::Impl::ErrorFor(const absl::Status& status) {
  const std::string message(status.message());
  switch (status.code()) {
    case absl::StatusCode::kResourceExhausted:
      return {429, message, "", "queue_full", load.RetryFullQueue(clock.Now(), scheduler.Stats())};
    case absl::StatusCode::kInvalidArgument:
      return {400, message, "", ""};
    case absl::StatusCode::kUnavailable:
      return {503, message, "", "not_serving", RetryUnavailable()};
    case absl::StatusCode::kDeadlineExceeded:
      return {504, message, "", "deadline_exceeded"};
    default:
      return {500, message, "", ""};
  }
}

absl::Duration OpenAiApi::Impl::RetryUnavailable() {
  const bool serving = scheduler.Stats().serving;
  const std::string state = options.cluster_state ? options.cluster_state() : "";
  const absl::Time now = clock.Now();
  absl::MutexLock lock(&mu);
  if (serving || !outage_since.has_value()) outage_since = now;
  return RetryOutage(state, now - *outage_since);
}

json OpenAiApi::Impl::ModelJson() const {
  return {{"id", model.id},
          {"object", "model"},
          {"created", created},
          {"owned_by", "efedllm"},
          {"context_length", model.context}};
}

void OpenAiApi::Impl::Models(HttpExchange& exchange) {
  Reply(exchange, JsonReply({{"object", "list"}, {"data", json::array({ModelJson()})}}));
}

void OpenAiApi::Impl::OneModel(HttpExchange& exchange) {
  const std::string name = exchange.request().path.substr(kModelPrefix.size());
  if (model.Answers(name)) return Reply(exchange, JsonReply(ModelJson()));
  Refuse(exchange, {404, absl::StrCat("The model '", Printable(name), "' does not exist"), "model",
                    "model_not_found"});
}

void OpenAiApi::Impl::Health(HttpExchange& exchange) {
  const absl::Status status = scheduler.Probe(kProbeTimeout);
  if (status.ok()) return Reply(exchange, JsonReply({{"status", "ok"}}));
  const ApiError error{503, std::string(status.message()), "", "not_serving", RetryUnavailable()};
  HttpReply reply = ErrorReplyFor(error);
  json body = ErrorJson(error);
  body["status"] = "unavailable";
  body["reason"] = error.message;
  reply.body = DumpJson(body);
  Reply(exchange, std::move(reply));
}

void OpenAiApi::Impl::Metrics(HttpExchange& exchange) {
  HttpReply reply;
  reply.content_type = "text/plain; version=0.0.4; charset=utf-8";
  std::vector<prometheus::MetricFamily> families = registry.Collect();
  if (cluster_metrics != nullptr) {
    for (auto& family : cluster_metrics->Collect()) families.push_back(std::move(family));
  }
  reply.body = prometheus::TextSerializer().Serialize(families);
  Reply(exchange, std::move(reply));
}

namespace {

// What a label may say: paths are the client's, and each value of a label costs memory for ever.
std::string RouteLabel(absl::string_view path) {
  if (absl::StartsWith(path, kModelPrefix)) return "/v1/models/{id}";
  for (const absl::string_view route :
       {"/v1/completions", "/v1/chat/completions", "/v1/models", "/health", "/metrics"}) {
    if (path == route) return std::string(route);
  }
  return "other";
}

}  // namespace

void OpenAiApi::Impl::Count(const HttpExchange& exchange, int status) {
  requests.Add({{"route", RouteLabel(exchange.request().path)}, {"code", absl::StrCat(status)}})
      .Increment();
}

void OpenAiApi::Impl::Reply(HttpExchange& exchange, HttpReply reply) {
  Count(exchange, reply.status);
  exchange.Reply(std::move(reply));
}

void OpenAiApi::Impl::Refuse(HttpExchange& exchange, const ApiError& error) {
  spdlog::debug("{} {}: {} {}", exchange.request().method, exchange.request().peer, error.status,
                error.message);
  Reply(exchange, ErrorReplyFor(error));
}

OpenAiApi::OpenAiApi(const Clock& clock, const ServedModel& model, Scheduler& scheduler,
                     prometheus::Registry& registry, const prometheus::Collectable* cluster_metrics,
                     const OpenAiOptions& options)
    : impl_(std::make_unique<Impl>(clock, model, scheduler, registry, cluster_metrics, options)) {}

OpenAiApi::~OpenAiApi() = default;

void OpenAiApi::Stop() { impl_->stopping = true; }

void OpenAiApi::Handle(HttpExchange& exchange) {
  struct Entry {
    absl::string_view path;
    bool post;
    Impl::Route route;
  };
  static constexpr Entry kRoutes[] = {
      {"/v1/chat/completions", true, &Impl::ChatCompletions},
      {"/v1/completions", true, &Impl::Completions},
      {"/v1/models", false, &Impl::Models},
      {"/health", false, &Impl::Health},
      {"/metrics", false, &Impl::Metrics},
  };
  const HttpRequest& request = exchange.request();
  const auto serve = [&](bool post, Impl::Route route) {
    const bool fits =
        post ? request.method == "POST" : request.method == "GET" || request.method == "HEAD";
    if (fits) return (impl_.get()->*route)(exchange);
    const char* allowed = post ? "POST" : "GET";
    HttpReply reply = ErrorReplyFor(
        {405, absl::StrCat(request.path, " takes ", allowed, ", not ", request.method), "", ""});
    reply.headers.emplace_back("Allow", allowed);
    impl_->Reply(exchange, std::move(reply));
  };
  for (const Entry& entry : kRoutes) {
    if (entry.path == request.path) return serve(entry.post, entry.route);
  }
  if (absl::StartsWith(request.path, kModelPrefix)) return serve(false, &Impl::OneModel);
  impl_->Refuse(exchange, {404,
                           absl::StrCat("there is no ", request.path,
                                        "; see /v1/models, /v1/completions, "
                                        "/v1/chat/completions, /health and /metrics"),
                           "", "unknown_url"});
}

HttpReply OpenAiApi::ErrorReply(int status, absl::string_view message) {
  return ErrorReplyFor({status, std::string(message), "", ""});
}

}  // namespace efedllm
