#include "coordinator/openai_api.h"

#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/logging.h"
#include "coordinator/openai_json.h"
#include "coordinator/openai_reply.h"
#include "coordinator/openai_request.h"
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

HttpReply JsonReply(const json& body) {
  HttpReply reply;
  reply.body = DumpJson(body);
  return reply;
}

ApiError ErrorFor(const absl::Status& status) {
  const std::string message(status.message());
  switch (status.code()) {
    case absl::StatusCode::kResourceExhausted:
      return {429, message, "", "queue_full"};
    case absl::StatusCode::kInvalidArgument:
      return {400, message, "", ""};
    case absl::StatusCode::kUnavailable:
      return {503, message, "", "not_serving"};
    case absl::StatusCode::kDeadlineExceeded:
      return {504, message, "", "deadline_exceeded"};
    default:
      return {500, message, "", ""};
  }
}

// The scheduler's work for a request, which nobody wants any more when this goes.
class GenerationOwner {
 public:
  explicit GenerationOwner(std::shared_ptr<Generation> generation)
      : generation_(std::move(generation)) {}
  ~GenerationOwner() { generation_->Cancel(); }
  GenerationOwner(const GenerationOwner&) = delete;
  GenerationOwner& operator=(const GenerationOwner&) = delete;

  Generation* operator->() const { return generation_.get(); }

 private:
  const std::shared_ptr<Generation> generation_;
};

// One request on its way: what it asked for, its work, and its reply.
struct Conversation {
  Conversation(ApiRequest parsed, BoundRequest bound, std::shared_ptr<Generation> generation,
               const ServedModel& model, int64_t created)
      : request(std::move(parsed)),
        writer(model, request, bound, generation->id(), created),
        work(std::move(generation)) {}

  const ApiRequest request;
  ReplyWriter writer;
  GenerationOwner work;
};

// The next event, or nullopt if there will be none: all were taken, or the client is gone.
template <class Connection>
std::optional<GenerationEvent> NextEvent(const Conversation& conversation,
                                         const Connection& connection) {
  while (!conversation.work->done() && !connection.ClientGone()) {
    if (auto event = conversation.work->Next(kPoll)) return event;
  }
  return std::nullopt;
}

void WriteStream(Conversation& conversation, GenerationEvent first, HttpStream& stream) {
  std::optional<GenerationEvent> event = std::move(first);
  for (; event.has_value(); event = NextEvent(conversation, stream)) {
    if (!event->status.ok()) {
      stream.WriteEvent(DumpJson(ErrorJson(ErrorFor(event->status))));
      return;
    }
    const auto chunk = conversation.writer.Chunk(*std::move(event));
    if (chunk.has_value() && !stream.WriteEvent(*chunk)) return;
  }
  if (!conversation.work->done()) return;  // the client is gone
  if (conversation.request.include_usage) stream.WriteEvent(conversation.writer.UsageChunk());
  stream.WriteEvent("[DONE]");
}

}  // namespace

struct OpenAiApi::Impl {
  using Route = void (Impl::*)(HttpExchange&);

  Impl(const Clock& clock, const ServedModel& model, Scheduler& scheduler,
       prometheus::Registry& registry, const prometheus::Collectable* cluster_metrics)
      : clock(clock),
        model(model),
        scheduler(scheduler),
        registry(registry),
        cluster_metrics(cluster_metrics),
        created(absl::ToUnixSeconds(clock.Now())),
        requests(prometheus::BuildCounter()
                     .Name("efedllm_http_requests_total")
                     .Help("Requests by route and status code; 499: the client went away")
                     .Register(registry)) {}

  void Completions(HttpExchange& exchange) { Generate(exchange, ParseCompletionRequest); }
  void ChatCompletions(HttpExchange& exchange) { Generate(exchange, ParseChatRequest); }
  void Models(HttpExchange& exchange);
  void OneModel(HttpExchange& exchange);
  void Health(HttpExchange& exchange);
  void Metrics(HttpExchange& exchange);

  void Generate(HttpExchange& exchange, ApiResult<ApiRequest> (*parse)(absl::string_view));
  ApiResult<std::shared_ptr<Conversation>> Begin(ApiResult<ApiRequest> parsed, absl::Time arrived,
                                                 const std::string& owner);
  void Answer(HttpExchange& exchange, std::shared_ptr<Conversation> conversation);

  json ModelJson() const;
  void Count(const HttpExchange& exchange, int status);
  void Reply(HttpExchange& exchange, HttpReply reply);
  void Refuse(HttpExchange& exchange, const ApiError& error);

  const Clock& clock;
  const ServedModel& model;
  Scheduler& scheduler;
  prometheus::Registry& registry;
  const prometheus::Collectable* const cluster_metrics;
  const int64_t created;
  prometheus::Family<prometheus::Counter>& requests;
};

namespace {

constexpr absl::string_view kModelPrefix = "/v1/models/";

}  // namespace

void OpenAiApi::Impl::Generate(HttpExchange& exchange,
                               ApiResult<ApiRequest> (*parse)(absl::string_view)) {
  const HttpRequest& request = exchange.request();
  const absl::Time arrived = clock.Now();
  auto conversation =
      Begin(parse(request.body), arrived, OwnerOf(request.Header("Authorization").value_or("")));
  if (const auto* error = std::get_if<ApiError>(&conversation)) return Refuse(exchange, *error);
  Answer(exchange, std::get<std::shared_ptr<Conversation>>(std::move(conversation)));
}

ApiResult<std::shared_ptr<Conversation>> OpenAiApi::Impl::Begin(ApiResult<ApiRequest> parsed,
                                                                absl::Time arrived,
                                                                const std::string& owner) {
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
  auto bound = BindRequest(request, model, *max_positions);
  if (auto* error = std::get_if<ApiError>(&bound)) return std::move(*error);
  auto& work = std::get<BoundRequest>(bound);
  for (GenerationInput& choice : work.choices) {
    choice.owner = owner;
    choice.deadline = arrived + request.timeout;
  }
  auto generation = scheduler.Submit(work.choices, NewReplyId(request.chat));
  if (!generation.ok()) return ErrorFor(generation.status());
  return std::make_shared<Conversation>(std::move(request), std::move(work), *std::move(generation),
                                        model, absl::ToUnixSeconds(arrived));
}

// The first event decides: a request that fails before it gets a status code, not a broken stream.
void OpenAiApi::Impl::Answer(HttpExchange& exchange, std::shared_ptr<Conversation> conversation) {
  auto event = NextEvent(*conversation, exchange);
  if (event.has_value() && event->status.ok() && conversation->request.stream) {
    Count(exchange, 200);
    HttpReply head;
    head.content_type = "text/event-stream";
    head.headers.emplace_back("Cache-Control", "no-cache");
    exchange.Stream(std::move(head), [conversation, first = *std::move(event)](HttpStream& stream) {
      WriteStream(*conversation, first, stream);
    });
    return;
  }
  for (; event.has_value(); event = NextEvent(*conversation, exchange)) {
    if (!event->status.ok()) return Refuse(exchange, ErrorFor(event->status));
    conversation->writer.Take(*std::move(event));
  }
  if (!conversation->work->done()) {
    return Refuse(exchange, {kClientClosedRequest, "the client closed the connection", "", ""});
  }
  HttpReply reply;
  reply.body = conversation->writer.Whole();
  Reply(exchange, std::move(reply));
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
  const ApiError error{503, std::string(status.message()), "", "not_serving"};
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
                     prometheus::Registry& registry, const prometheus::Collectable* cluster_metrics)
    : impl_(std::make_unique<Impl>(clock, model, scheduler, registry, cluster_metrics)) {}

OpenAiApi::~OpenAiApi() = default;

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
