// Requests that are sent again, and what clients are told when the server can't serve them.
#include <filesystem>
#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "coordinator/openai_api.h"
#include "coordinator/openai_key.h"
#include "coordinator/reply_store.h"
#include "coordinator/scheduler.h"
#include "coordinator/serving_world.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace efedllm {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

// The time of the API's clock is the test's.
class RetryTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/efedllm-retry-XXXXXX";
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
    Restart();
  }
  void TearDown() override {
    api_.reset();
    scheduler_.reset();
    std::filesystem::remove_all(dir_);
  }

  // The coordinator stops, and begins anew on its state.
  void Restart() {
    api_.reset();
    scheduler_.reset();
    registry_ = std::make_unique<prometheus::Registry>();
    pipeline_ = std::make_unique<FakePipeline>();
    scheduler_ = std::make_unique<Scheduler>(clock_, Seedling(), *pipeline_, options_, *registry_);
    store_ = ReplyStore::Open(dir_ + "/replies.db", clock_).value();
    OpenAiOptions api_options;
    api_options.max_queue = options_.max_queue;
    api_options.replies = store_.get();
    api_ = std::make_unique<OpenAiApi>(clock_, Seedling(), *scheduler_, *registry_, nullptr,
                                       api_options);
  }

  std::unique_ptr<FakeExchange> Send(const json& body, const std::string& key,
                                     const std::string& api_key = "") {
    HttpHeaders headers = {{"idempotency-key", key}};
    if (!api_key.empty()) headers.emplace_back("Authorization", "Bearer " + api_key);
    auto exchange = std::make_unique<FakeExchange>("POST", "/v1/completions", body.dump(), headers);
    api_->Handle(*exchange);
    if (exchange->streamed()) exchange->RunStream();
    return exchange;
  }
  static json Ask(uint32_t tokens, bool stream = false) {
    return {
        {"prompt", "Once upon"}, {"max_tokens", tokens}, {"ignore_eos", true}, {"stream", stream}};
  }
  // When all is done: the last token is counted after it was told.
  uint64_t generated() const {
    EXPECT_TRUE(scheduler_->WaitIdle(absl::Seconds(20)));
    return scheduler_->Stats().generated_tokens;
  }
  // Until the first step is under way.
  void AwaitSequence() {
    while (pipeline_->sequences() == 0) absl::SleepFor(absl::Milliseconds(1));
  }
  void AwaitIdle() { ASSERT_TRUE(scheduler_->WaitIdle(absl::Seconds(20))); }

  std::string dir_;
  ManualClock clock_;
  SchedulerOptions options_;
  std::unique_ptr<prometheus::Registry> registry_;
  std::unique_ptr<FakePipeline> pipeline_;
  std::unique_ptr<ReplyStore> store_;
  std::unique_ptr<Scheduler> scheduler_;
  std::unique_ptr<OpenAiApi> api_;
};

TEST_F(RetryTest, ARetryGetsTheSameBytesAndRunsNothing) {
  for (const bool stream : {false, true}) {
    const std::string key = stream ? "streamed" : "whole";
    const auto first = Send(Ask(20, stream), key);
    ASSERT_EQ(first->status(), 200) << first->reply().body;
    EXPECT_EQ(first->header("Idempotent-Replayed"), std::nullopt);
    const uint64_t before = generated();
    const auto again = Send(Ask(20, stream), key);
    EXPECT_EQ(again->status(), 200);
    EXPECT_EQ(again->header("Idempotent-Replayed"), "true");
    EXPECT_EQ(again->reply().content_type, first->reply().content_type);
    EXPECT_EQ(again->reply().body, first->reply().body);
    EXPECT_EQ(again->events(), first->events());
    EXPECT_EQ(generated(), before);
  }
}

TEST_F(RetryTest, ARestartKeepsReplies) {
  const auto whole = Send(Ask(20), "a");
  const auto stream = Send(Ask(20, true), "b");
  Restart();
  EXPECT_EQ(Send(Ask(20), "a")->reply().body, whole->reply().body);
  EXPECT_EQ(Send(Ask(20, true), "b")->events(), stream->events());
  EXPECT_EQ(generated(), 0u);
  EXPECT_EQ(Send(Ask(21), "a")->status(), 422);
}

TEST_F(RetryTest, AnotherBodyOrRouteUnderTheSameKeyIs422) {
  Send(Ask(5), "a");
  const auto other = Send(Ask(6), "a");
  EXPECT_EQ(other->status(), 422);
  EXPECT_EQ(other->json()["error"]["code"], "idempotency_key_reused");
  EXPECT_EQ(other->json()["error"]["type"], "invalid_request_error");
  FakeExchange chat("POST", "/v1/chat/completions", Ask(5).dump(), {{"Idempotency-Key", "a"}});
  api_->Handle(chat);
  EXPECT_EQ(chat.status(), 422);
}

TEST_F(RetryTest, KeysBelongToTheirOwners) {
  const auto mine = Send(Ask(5), "a", "alice");
  const auto theirs = Send(Ask(6), "a", "bob");
  EXPECT_EQ(theirs->status(), 200);
  EXPECT_EQ(theirs->header("Idempotent-Replayed"), std::nullopt);
  EXPECT_NE(theirs->json()["id"], mine->json()["id"]);
}

TEST_F(RetryTest, KeysAreChecked) {
  for (const std::string& key :
       {std::string(), std::string(256, 'k'), std::string("a\tb"), std::string("\xc3\xa4")}) {
    const auto refused = Send(Ask(5), key);
    EXPECT_EQ(refused->status(), 400) << key;
    EXPECT_EQ(refused->json()["error"]["code"], "invalid_idempotency_key");
  }
  EXPECT_EQ(Send(Ask(5), std::string(255, 'k'))->status(), 200);
}

TEST_F(RetryTest, ConcurrentDuplicatesShareOneRun) {
  for (const bool stream : {false, true}) {
    const uint64_t before = generated();
    pipeline_->Hold(true);
    std::vector<std::unique_ptr<FakeExchange>> exchanges(8);
    std::vector<std::thread> clients;
    for (auto& exchange : exchanges) {
      clients.emplace_back([&] { exchange = Send(Ask(30, stream), stream ? "s" : "w"); });
    }
    AwaitSequence();
    pipeline_->Hold(false);
    for (std::thread& client : clients) client.join();
    size_t replayed = 0;
    for (const auto& exchange : exchanges) {
      EXPECT_EQ(exchange->status(), 200);
      EXPECT_EQ(exchange->reply().body, exchanges[0]->reply().body);
      EXPECT_EQ(exchange->events(), exchanges[0]->events());
      replayed += exchange->header("Idempotent-Replayed").has_value();
    }
    EXPECT_EQ(replayed, 7u);
    EXPECT_EQ(generated(), before + 30);
  }
}

TEST_F(RetryTest, AClientThatHangsUpFindsItsStreamAgain) {
  FakeExchange first("POST", "/v1/completions", Ask(200, true).dump(), {{"Idempotency-Key", "a"}});
  api_->Handle(first);
  ASSERT_TRUE(first.streamed()) << first.reply().body;
  first.RunStream(/*hang_up_after=*/2);
  const auto again = Send(Ask(200, true), "a");
  EXPECT_EQ(again->header("Idempotent-Replayed"), "true");
  const std::vector<std::string> events = again->events();
  EXPECT_EQ(events.back(), "[DONE]");
  EXPECT_EQ(events[0], first.events()[0]);
  EXPECT_EQ(events[1], first.events()[1]);
  EXPECT_EQ(generated(), 200u);
}

TEST_F(RetryTest, WhomNobodyWaitsForIsCancelledAfterAMinute) {
  pipeline_->Hold(true);
  FakeExchange first("POST", "/v1/completions", Ask(200).dump(), {{"Idempotency-Key", "a"}});
  std::thread handler([&] { api_->Handle(first); });
  AwaitSequence();
  first.gone = true;
  handler.join();
  clock_.Advance(absl::Seconds(59));
  EXPECT_EQ(scheduler_->Stats().running, 1u);
  clock_.Advance(absl::Seconds(2));
  while (scheduler_->Stats().running > 0) {
    absl::SleepFor(absl::Milliseconds(5));
    pipeline_->Hold(false);
    pipeline_->Hold(true);
  }
  pipeline_->Hold(false);
  AwaitIdle();
  EXPECT_LT(generated(), 200u);
  EXPECT_EQ(Send(Ask(200), "a")->header("Idempotent-Replayed"), std::nullopt);
}

TEST_F(RetryTest, WhatWasCutOffByACrashRunsAgainToTheSameText) {
  const auto first = Send(Ask(30), "a");
  api_.reset();
  store_.reset();
  std::filesystem::remove(dir_ + "/replies.db");  // it was not written in time
  std::filesystem::remove(dir_ + "/replies.db-wal");
  std::filesystem::remove(dir_ + "/replies.db-shm");
  Restart();
  const auto again = Send(Ask(30), "a");
  EXPECT_EQ(again->header("Idempotent-Replayed"), std::nullopt);
  EXPECT_EQ(again->json()["choices"], first->json()["choices"]);
  EXPECT_NE(Send(Ask(30), "b")->json()["choices"], first->json()["choices"]);  // by chance 1
}

TEST_F(RetryTest, FailuresMayBeRetried) {
  options_.outage_admission = absl::ZeroDuration();
  options_.outage_patience = absl::Seconds(60);
  Restart();
  pipeline_->Hold(true);
  std::unique_ptr<FakeExchange> failed;
  std::thread client([&] { failed = Send(Ask(50, true), "a"); });
  AwaitSequence();
  pipeline_->EndEpoch("waiting for 2 of 3 workers");
  pipeline_->Hold(false);
  while (scheduler_->Stats().serving) absl::SleepFor(absl::Milliseconds(1));
  clock_.Advance(absl::Seconds(61));
  client.join();
  EXPECT_EQ(failed->status(), 503);
  const auto refused = Send(Ask(50, true), "a");
  EXPECT_EQ(refused->status(), 503);
  EXPECT_EQ(refused->json()["error"]["message"], "waiting for 2 of 3 workers");
  pipeline_->BeginEpoch(2);
  while (!scheduler_->Stats().serving) absl::SleepFor(absl::Milliseconds(1));
  const auto served = Send(Ask(50, true), "a");
  EXPECT_EQ(served->status(), 200);
  EXPECT_EQ(served->events().back(), "[DONE]");
  EXPECT_EQ(Send(json{{"prompt", 5}}, "bad")->status(), 400);
  EXPECT_EQ(Send(Ask(5), "bad")->status(), 200);  // what was refused keeps no key
}

TEST_F(RetryTest, StoppingEndsStreamsWithAnErrorEvent) {
  for (const bool keyed : {false, true}) {
    Restart();
    HttpHeaders headers;
    if (keyed) headers.emplace_back("Idempotency-Key", "a");
    FakeExchange stream("POST", "/v1/completions", Ask(900, true).dump(), headers);
    api_->Handle(stream);
    ASSERT_TRUE(stream.streamed()) << stream.reply().body;
    pipeline_->Hold(true);
    FakeExchange whole("POST", "/v1/completions", Ask(900).dump(), {});
    std::thread waiting([&] { api_->Handle(whole); });
    std::thread reader([&] { stream.RunStream(); });
    while (scheduler_->Stats().running < 2) absl::SleepFor(absl::Milliseconds(1));
    api_->Stop();
    reader.join();
    waiting.join();
    const json last = json::parse(stream.events().back());
    EXPECT_EQ(last["error"]["type"], "service_unavailable_error");
    EXPECT_THAT(last["error"]["message"].get<std::string>(), HasSubstr("shutting down"));
    EXPECT_EQ(whole.status(), 503);
    EXPECT_EQ(Send(Ask(5), "b")->status(), 503);
    pipeline_->Hold(false);
  }
}

TEST_F(RetryTest, AFullQueueIsToldBeforeTheRequestIsLookedAt) {
  options_.max_queue = 1;
  options_.max_sequences = 1;
  Restart();
  pipeline_->Hold(true);
  auto running = scheduler_->Submit({efedllm::Ask("x", 5)});
  AwaitSequence();
  auto waiting = scheduler_->Submit({efedllm::Ask("x", 5)});
  FakeExchange exchange("POST", "/v1/completions", "no JSON at all");
  api_->Handle(exchange);
  EXPECT_EQ(exchange.status(), 429);
  EXPECT_EQ(exchange.header("Retry-After"), "1");
  EXPECT_EQ(Send(Ask(5), "a")->status(), 429);
  pipeline_->Hold(false);
  AwaitIdle();
  EXPECT_EQ(Send(Ask(5), "a")->status(), 200);
}

TEST_F(RetryTest, ATimeoutThatCannotBeMetIsRefusedAtOnce) {
  options_.max_sequences = 1;
  Restart();
  json crowd = Ask(8, true);
  crowd["n"] = 120;
  FakeExchange exchange("POST", "/v1/completions", crowd.dump(), {{"Idempotency-Key", "crowd"}});
  api_->Handle(exchange);
  ASSERT_TRUE(exchange.streamed()) << exchange.reply().body;
  exchange.RunStream(/*hang_up_after=*/80);  // about ten of them; the others go on
  pipeline_->Hold(true);
  ASSERT_GT(scheduler_->Stats().queued, 5u);
  clock_.Advance(absl::Seconds(20));
  json hasty = Ask(1);
  hasty["timeout"] = 0.01;
  const auto refused = Send(hasty, "hasty");
  EXPECT_EQ(refused->status(), 429) << refused->reply().body;
  EXPECT_EQ(refused->json()["error"]["code"], "queue_too_long");
  int seconds = 0;
  EXPECT_TRUE(absl::SimpleAtoi(refused->header("Retry-After").value_or(""), &seconds));
  EXPECT_GE(seconds, 1);
  pipeline_->Hold(false);
  AwaitIdle();
}

}  // namespace
}  // namespace efedllm
