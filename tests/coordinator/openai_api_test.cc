#include "coordinator/openai_api.h"

#include <thread>

#include "absl/strings/numbers.h"
#include "coordinator/local_pipeline.h"
#include "coordinator/scheduler.h"
#include "coordinator/serving_world.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace efedllm {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

// The API over the bundled model, computed here.
class OpenAiApiTest : public testing::Test {
 protected:
  void SetUp() override {
    LocalPipelineOptions options;
    options.kv_tokens = 8192;
    pipeline_ = *LocalPipeline::Create(Seedling().config, Seedling().file, options, compute_);
    scheduler_ =
        std::make_unique<Scheduler>(clock_, Seedling(), *pipeline_, SchedulerOptions{}, registry_);
    api_ = std::make_unique<OpenAiApi>(clock_, Seedling(), *scheduler_, registry_);
  }

  json Post(const std::string& path, const json& body, int status = 200) {
    FakeExchange exchange("POST", path, body.dump());
    api_->Handle(exchange);
    EXPECT_EQ(exchange.status(), status) << exchange.reply().body;
    return exchange.json();
  }
  json Complete(const json& body, int status = 200) {
    return Post("/v1/completions", body, status);
  }
  json Chat(json body, int status = 200) { return Post("/v1/chat/completions", body, status); }

  // The data of all events; the last one is [DONE].
  std::vector<json> Stream(const std::string& path, json body) {
    body["stream"] = true;
    FakeExchange exchange("POST", path, body.dump());
    api_->Handle(exchange);
    EXPECT_TRUE(exchange.streamed()) << exchange.reply().body;
    EXPECT_EQ(exchange.reply().content_type, "text/event-stream");
    exchange.RunStream();
    std::vector<std::string> events = exchange.events();
    EXPECT_EQ(events.back(), "[DONE]");
    events.pop_back();
    std::vector<json> chunks;
    for (const std::string& event : events) chunks.push_back(json::parse(event));
    return chunks;
  }

  static json Messages(const std::string& text) {
    return json::array({{{"role", "user"}, {"content", text}}});
  }

  SystemClock clock_;
  prometheus::Registry registry_;
  Compute compute_ = *Compute::Create(1, "auto");
  std::unique_ptr<LocalPipeline> pipeline_;
  std::unique_ptr<Scheduler> scheduler_;
  std::unique_ptr<OpenAiApi> api_;
};

TEST_F(OpenAiApiTest, ChatAnswers) {
  const json reply =
      Chat({{"model", "seedling"}, {"messages", Messages("What is 27 + 48?")}, {"temperature", 0}});
  EXPECT_EQ(reply["object"], "chat.completion");
  EXPECT_EQ(reply["model"], "seedling-q8_0");
  EXPECT_EQ(reply["choices"][0]["message"]["content"], "27 + 48 = 75");
  EXPECT_EQ(reply["choices"][0]["message"]["role"], "assistant");
  EXPECT_EQ(reply["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(reply["usage"]["total_tokens"], reply["usage"]["prompt_tokens"].get<int>() +
                                                reply["usage"]["completion_tokens"].get<int>());
}

TEST_F(OpenAiApiTest, AStreamIsTheReplyInPieces) {
  const json body = {{"messages", Messages("Show me a fox emoji.")},
                     {"temperature", 0},
                     {"stream_options", {{"include_usage", true}}}};
  const std::vector<json> chunks = Stream("/v1/chat/completions", body);
  std::string text;
  for (size_t i = 0; i + 1 < chunks.size(); ++i) {
    ASSERT_EQ(chunks[i]["object"], "chat.completion.chunk");
    EXPECT_TRUE(chunks[i]["usage"].is_null());
    text += chunks[i]["choices"][0]["delta"].value("content", "");
  }
  EXPECT_EQ(text, "\U0001F98A");
  EXPECT_EQ(chunks[0]["choices"][0]["delta"]["role"], "assistant");
  EXPECT_EQ(chunks[chunks.size() - 2]["choices"][0]["finish_reason"], "stop");
  EXPECT_TRUE(chunks.back()["choices"].empty());
  EXPECT_GT(chunks.back()["usage"]["completion_tokens"], 0);
}

TEST_F(OpenAiApiTest, ManyPromptsTimesNBecomeIndexedChoices) {
  const json reply = Complete(
      {{"prompt", {"12 + 34 =", "Once upon"}}, {"n", 2}, {"temperature", 0}, {"max_tokens", 4}});
  ASSERT_EQ(reply["choices"].size(), 4u);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(reply["choices"][i]["index"], i);
  EXPECT_EQ(reply["choices"][0]["text"], reply["choices"][1]["text"]);
  EXPECT_EQ(reply["choices"][2]["text"], reply["choices"][3]["text"]);
  EXPECT_EQ(reply["usage"]["completion_tokens"], 16);
  EXPECT_TRUE(reply["usage"]["prompt_tokens_details"]["cached_tokens"].is_number_unsigned());
  const json& details = reply["usage"]["completion_tokens_details"];
  EXPECT_LE(details["accepted_prediction_tokens"], 16);
  EXPECT_TRUE(details["rejected_prediction_tokens"].is_number_unsigned());
  EXPECT_EQ(reply["choices"][0]["text"], Complete({{"prompt", "12 + 34 ="},
                                                   {"temperature", 0},
                                                   {"max_tokens", 4}})["choices"][0]["text"]);
}

TEST_F(OpenAiApiTest, EchoWithLogprobsScoresThePrompt) {
  const json reply = Complete(
      {{"prompt", "Once upon a time"}, {"echo", true}, {"logprobs", 2}, {"max_tokens", 0}});
  const json& choice = reply["choices"][0];
  EXPECT_EQ(choice["text"], "Once upon a time");
  const json& logprobs = choice["logprobs"];
  const size_t tokens = logprobs["tokens"].size();
  EXPECT_EQ(reply["usage"]["prompt_tokens"], tokens);
  EXPECT_EQ(logprobs["tokens"][0], "<s>");
  EXPECT_TRUE(logprobs["token_logprobs"][0].is_null());
  EXPECT_TRUE(logprobs["top_logprobs"][0].is_null());
  for (size_t i = 1; i < tokens; ++i) {
    EXPECT_LE(logprobs["token_logprobs"][i].get<float>(), 0);
    EXPECT_GE(logprobs["top_logprobs"][i].size(), 2u);
    const size_t offset = logprobs["text_offset"][i];
    const std::string token = logprobs["tokens"][i];
    EXPECT_EQ(std::string("Once upon a time").substr(offset, token.size()), token);
  }
  EXPECT_EQ(choice["finish_reason"], "length");
}

TEST_F(OpenAiApiTest, EchoAndStreamTogetherGiveTheSameText) {
  const json body = {{"prompt", "12 + 34 ="},
                     {"echo", true},
                     {"logprobs", 0},
                     {"max_tokens", 5},
                     {"temperature", 0}};
  const json whole = Complete(body)["choices"][0];
  std::string text;
  json tokens = json::array();
  json offsets = json::array();
  for (const json& chunk : Stream("/v1/completions", body)) {
    const json& choice = chunk["choices"][0];
    text += choice["text"].get<std::string>();
    if (choice["logprobs"].is_null()) continue;
    for (const json& token : choice["logprobs"]["tokens"]) tokens.push_back(token);
    for (const json& offset : choice["logprobs"]["text_offset"]) offsets.push_back(offset);
  }
  EXPECT_EQ(text, whole["text"]);
  EXPECT_EQ(tokens, whole["logprobs"]["tokens"]);
  EXPECT_EQ(offsets, whole["logprobs"]["text_offset"]);
}

TEST_F(OpenAiApiTest, ChatLogprobsHaveBytes) {
  const json reply = Chat({{"messages", Messages("Show me a fox emoji.")},
                           {"temperature", 0},
                           {"logprobs", true},
                           {"top_logprobs", 3}});
  std::string text;
  for (const json& entry : reply["choices"][0]["logprobs"]["content"]) {
    EXPECT_EQ(entry["top_logprobs"].size(), 3u);
    EXPECT_LE(entry["logprob"].get<float>(), 0);
    for (const json& byte : entry["bytes"]) text.push_back(static_cast<char>(byte.get<int>()));
  }
  EXPECT_EQ(text, reply["choices"][0]["message"]["content"]);
}

TEST_F(OpenAiApiTest, StopStringsAreCutExactly) {
  const json reply = Chat({{"messages", Messages("What is 27 + 48?")},
                           {"temperature", 0},
                           {"stop", {" = 7", "never"}}});
  EXPECT_EQ(reply["choices"][0]["message"]["content"], "27 + 48");
  EXPECT_EQ(reply["choices"][0]["finish_reason"], "stop");
}

TEST_F(OpenAiApiTest, TheSameSeedGivesTheSameText) {
  const json body = {{"prompt", "Once upon"}, {"seed", 11}, {"max_tokens", 20}};
  EXPECT_EQ(Complete(body)["choices"][0]["text"], Complete(body)["choices"][0]["text"]);
}

TEST_F(OpenAiApiTest, ErrorsAreInOpenAisForm) {
  const json error = Complete({{"prompt", "x"}, {"temperature", -1}}, 400)["error"];
  EXPECT_EQ(error["type"], "invalid_request_error");
  EXPECT_EQ(error["param"], "temperature");
  EXPECT_TRUE(error["code"].is_null());
  EXPECT_EQ(Complete({{"prompt", "x"}, {"model", "gpt-4"}}, 404)["error"]["code"],
            "model_not_found");
  EXPECT_LT(Complete({{"prompt", "x"}, {"model", std::string(1 << 20, 'm')}}, 404).dump().size(),
            500u);
  EXPECT_EQ(Complete({{"prompt", "x"}, {"max_tokens", 5000}}, 400)["error"]["code"],
            "context_length_exceeded");
  FakeExchange exchange("POST", "/v1/completions", "{\"prompt\": \"\xc3\"}");
  api_->Handle(exchange);
  EXPECT_EQ(exchange.status(), 400);
  EXPECT_THAT(exchange.json()["error"]["message"].get<std::string>(), HasSubstr("UTF-8"));
}

TEST_F(OpenAiApiTest, KnowsItsRoutesAndMethods) {
  FakeExchange nowhere("GET", "/v2/\xff");
  api_->Handle(nowhere);
  EXPECT_EQ(nowhere.status(), 404);
  EXPECT_EQ(nowhere.json()["error"]["code"], "unknown_url");
  FakeExchange get("GET", "/v1/completions");
  api_->Handle(get);
  EXPECT_EQ(get.status(), 405);
  EXPECT_EQ(get.reply().headers.at(0), (std::pair<std::string, std::string>("Allow", "POST")));
}

TEST_F(OpenAiApiTest, ListsItsModel) {
  FakeExchange list("GET", "/v1/models");
  api_->Handle(list);
  EXPECT_EQ(list.json()["data"][0]["id"], "seedling-q8_0");
  FakeExchange one("GET", "/v1/models/Seedling");
  api_->Handle(one);
  EXPECT_EQ(one.json()["object"], "model");
  FakeExchange other("GET", "/v1/models/gpt-4");
  api_->Handle(other);
  EXPECT_EQ(other.status(), 404);
}

TEST_F(OpenAiApiTest, HealthAndMetricsAreServed) {
  FakeExchange health("GET", "/health");
  api_->Handle(health);
  EXPECT_EQ(health.status(), 200) << health.reply().body;
  Complete({{"prompt", "x"}, {"max_tokens", 3}, {"ignore_eos", true}});
  FakeExchange metrics("GET", "/metrics");
  api_->Handle(metrics);
  EXPECT_THAT(metrics.reply().body, HasSubstr("efedllm_generated_tokens_total 3"));
  EXPECT_THAT(metrics.reply().body,
              HasSubstr("efedllm_http_requests_total{code=\"200\",route=\"/v1/completions\"} 1"));
}

TEST_F(OpenAiApiTest, AStreamsHangUpCancels) {
  FakeExchange exchange(
      "POST", "/v1/completions",
      json{{"prompt", "Once"}, {"max_tokens", 1000}, {"ignore_eos", true}, {"stream", true}}
          .dump());
  api_->Handle(exchange);
  exchange.RunStream(/*hang_up_after=*/2);
  EXPECT_TRUE(scheduler_->WaitIdle(absl::Seconds(10)));
  EXPECT_LT(scheduler_->Stats().generated_tokens, 900u);
}

TEST(OpenAiApi, SaysWhyItDoesNotServe) {
  const SystemClock clock;
  prometheus::Registry registry;
  FakePipeline pipeline;
  pipeline.EndEpoch("waiting for 2 of 3 workers");
  Scheduler scheduler(clock, Seedling(), pipeline, {}, registry);
  OpenAiApi api(clock, Seedling(), scheduler, registry);
  FakeExchange completion("POST", "/v1/completions", R"({"prompt":"x"})");
  api.Handle(completion);
  EXPECT_EQ(completion.status(), 503);
  EXPECT_EQ(completion.json()["error"]["message"], "waiting for 2 of 3 workers");
  EXPECT_EQ(completion.reply().headers.at(0).first, "Retry-After");
  FakeExchange health("GET", "/health");
  api.Handle(health);
  EXPECT_EQ(health.status(), 503);
  EXPECT_EQ(health.json()["reason"], "waiting for 2 of 3 workers");
}

TEST(OpenAiApi, AFullQueueSaysWhenToComeBack) {
  const SystemClock clock;
  prometheus::Registry registry;
  FakePipeline pipeline;
  SchedulerOptions options;
  options.max_queue = 1;
  options.max_sequences = 1;
  Scheduler scheduler(clock, Seedling(), pipeline, options, registry);
  OpenAiApi api(clock, Seedling(), scheduler, registry);
  pipeline.Hold(true);
  auto running = scheduler.Submit({Ask("x", 5)});
  while (pipeline.sequences() == 0) absl::SleepFor(absl::Milliseconds(1));
  auto waiting = scheduler.Submit({Ask("x", 5)});
  ASSERT_TRUE(running.ok() && waiting.ok());
  FakeExchange exchange("POST", "/v1/completions", R"({"prompt":"x"})");
  api.Handle(exchange);
  EXPECT_EQ(exchange.status(), 429);
  EXPECT_EQ(exchange.json()["error"]["type"], "rate_limit_error");
  const HttpReply& reply = exchange.reply();
  ASSERT_EQ(reply.headers.size(), 1u);
  EXPECT_EQ(reply.headers[0].first, "Retry-After");
  int seconds = 0;
  EXPECT_TRUE(absl::SimpleAtoi(reply.headers[0].second, &seconds) && seconds >= 1);
}

TEST(OpenAiApi, ATimeoutIsA504OrAStreamsLastEvent) {
  const SystemClock clock;
  prometheus::Registry registry;
  FakePipeline pipeline;
  Scheduler scheduler(clock, Seedling(), pipeline, {}, registry);
  OpenAiApi api(clock, Seedling(), scheduler, registry);
  FakeExchange stream("POST", "/v1/completions",
                      R"({"prompt":"x","max_tokens":1000,"ignore_eos":true,"stream":true,)"
                      R"("temperature":0,"timeout":2})");
  api.Handle(stream);
  pipeline.Hold(true);
  FakeExchange exchange("POST", "/v1/completions", R"({"prompt":"x","timeout":0.05})");
  api.Handle(exchange);
  EXPECT_EQ(exchange.status(), 504);
  EXPECT_EQ(exchange.json()["error"]["type"], "timeout_error");
  EXPECT_EQ(exchange.json()["error"]["code"], "deadline_exceeded");
  stream.RunStream();
  EXPECT_EQ(json::parse(stream.events().back())["error"]["code"], "deadline_exceeded");
  pipeline.Hold(false);
  EXPECT_TRUE(scheduler.WaitIdle(absl::Seconds(10)));
}

TEST(OpenAiApi, AWaitingClientThatHangsUpCancels) {
  const SystemClock clock;
  prometheus::Registry registry;
  FakePipeline pipeline;
  Scheduler scheduler(clock, Seedling(), pipeline, {}, registry);
  OpenAiApi api(clock, Seedling(), scheduler, registry);
  pipeline.Hold(true);
  FakeExchange exchange("POST", "/v1/completions", R"({"prompt":"x","max_tokens":500})");
  std::thread handler([&] { api.Handle(exchange); });
  while (pipeline.sequences() == 0) absl::SleepFor(absl::Milliseconds(1));
  exchange.gone = true;
  handler.join();
  pipeline.Hold(false);
  EXPECT_TRUE(scheduler.WaitIdle(absl::Seconds(10)));
}

TEST(OpenAiApi, AFailureInAStreamIsItsLastEvent) {
  const SystemClock clock;
  prometheus::Registry registry;
  FakePipeline pipeline;
  SchedulerOptions options;
  options.outage_patience = absl::Milliseconds(50);
  Scheduler scheduler(clock, Seedling(), pipeline, options, registry);
  OpenAiApi api(clock, Seedling(), scheduler, registry);
  FakeExchange exchange(
      "POST", "/v1/completions",
      R"({"prompt":"x","max_tokens":1000,"ignore_eos":true,"stream":true,"temperature":0})");
  api.Handle(exchange);
  pipeline.EndEpoch("no worker is left");
  exchange.RunStream();
  const json last = json::parse(exchange.events().back());
  EXPECT_EQ(last["error"]["type"], "service_unavailable_error");
}

}  // namespace
}  // namespace efedllm
