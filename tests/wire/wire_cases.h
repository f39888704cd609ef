// What FromWire is to refuse, and by which field's name.
#ifndef EFEDLLM_TESTS_WIRE_WIRE_CASES_H_
#define EFEDLLM_TESTS_WIRE_WIRE_CASES_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace efedllm {

template <class Message>
struct BadCase {
  const char* field;  // named by the error
  std::function<void(Message&)> change;
};

template <class Domain, class Message>
void ExpectRefused(const Domain& good, const std::vector<BadCase<Message>>& cases) {
  ASSERT_TRUE(FromWire(ToWire(good)).ok());
  for (const BadCase<Message>& bad : cases) {
    Message message = ToWire(good);
    bad.change(message);
    const absl::Status status = FromWire(message).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad.field;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr(bad.field));
  }
}

}  // namespace efedllm

#endif  // EFEDLLM_TESTS_WIRE_WIRE_CASES_H_
