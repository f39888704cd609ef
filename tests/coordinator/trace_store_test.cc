#include "coordinator/trace_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace efedllm {
namespace {

using ::testing::HasSubstr;

StepTrace OfStep(uint64_t step) {
  StepTrace trace;
  trace.step = StepId{step};
  trace.timings = std::make_shared<const std::vector<StageTiming>>();
  return trace;
}

TEST(TraceStore, FindsARequestByItsIdAndTheLatestWithoutOne) {
  TraceStore store;
  store.Record("cmpl-1", OfStep(1));
  store.Record("cmpl-2", OfStep(2));
  store.Record("cmpl-1", OfStep(3));
  const auto first = store.Find("cmpl-1");
  ASSERT_TRUE(first.ok());
  ASSERT_EQ(first->steps.size(), 2u);
  EXPECT_EQ(first->steps[1].step, StepId{3});
  EXPECT_EQ(store.Find("")->request, "cmpl-2");
}

TEST(TraceStore, AnUnknownIdIsToldWhatThereIs) {
  TraceStore store;
  EXPECT_THAT(std::string(store.Find("").status().message()), HasSubstr("send one first"));
  EXPECT_TRUE(absl::IsNotFound(store.Find("").status()));
  store.Record("chatcmpl-7", OfStep(1));
  const absl::Status status = store.Find("chatcmpl-8\n").status();
  EXPECT_TRUE(absl::IsNotFound(status));
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("chatcmpl-8"), HasSubstr("the latest is chatcmpl-7"),
                    HasSubstr("\"id\" of its reply")));
}

TEST(TraceStore, ARequestWithoutANameIsNotKept) {
  TraceStore store;
  store.Record("", OfStep(1));
  EXPECT_FALSE(store.Find("").ok());
}

TEST(TraceStore, ForgetsTheOldestRequests) {
  TraceStore store;
  for (size_t i = 0; i <= TraceStore::kMaxRequests; ++i) {
    store.Record(absl::StrCat("cmpl-", i), OfStep(1));
  }
  EXPECT_FALSE(store.Find("cmpl-0").ok());
  EXPECT_TRUE(store.Find("cmpl-1").ok());
  store.Record("cmpl-0", OfStep(2));  // begins anew
  EXPECT_FALSE(store.Find("cmpl-1").ok());
  EXPECT_EQ(store.Find("")->request, "cmpl-0");
}

TEST(TraceStore, KeepsAnEndlessRequestsBeginningAndCountsTheRest) {
  TraceStore store;
  for (size_t i = 0; i < TraceStore::kMaxSteps + 5; ++i) store.Record("cmpl-1", OfStep(i));
  const auto trace = store.Find("cmpl-1");
  EXPECT_EQ(trace->steps.size(), TraceStore::kMaxSteps);
  EXPECT_EQ(trace->steps_left_out, 5u);
}

TEST(TraceStore, BoundsTheStepsOfAllRequestsTogether) {
  TraceStore store;
  const size_t most = TraceStore::kMaxStepsTogether / TraceStore::kMaxSteps;
  for (size_t request = 0; request <= most; ++request) {
    for (size_t i = 0; i < TraceStore::kMaxSteps; ++i) {
      store.Record(absl::StrCat("cmpl-", request), OfStep(i));
    }
  }
  EXPECT_FALSE(store.Find("cmpl-0").ok());
  EXPECT_TRUE(store.Find("cmpl-1").ok());
}

}  // namespace
}  // namespace efedllm
